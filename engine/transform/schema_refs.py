"""A schema that names others by `$ref`, made into one document that stands alone. Pure.

XDM schemas are written so: `allOf` with the `$ref` of a class and of field groups. Each document
that is named, and what that names, becomes one of the schema's `definitions`.
"""

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
MOST = 200  # documents that one schema may name, those that they name included
LARGEST = 200_000  # objects and lists, in all of them


class RefError(ValueError):
    """A `$ref` leads nowhere, or to too much: the end of a sentence."""


def bundled(document: Json, lookup: Callable[[str], Json | None]) -> Json:
    """`document` with all that it names by `$ref` in its `definitions`.

    `lookup` finds a document by its `$id`, or gives None. A `$ref` of its own stays as it is.
    Raises RefError.
    """
    bundle = _Bundle(lookup)
    found: Json = bundle.localized(document, "#")
    if bundle.documents:
        found["definitions"] = found.get("definitions", {}) | bundle.documents
    return found


class _Bundle:
    """The documents that were named so far, by the names that they get."""

    def __init__(self, lookup: Callable[[str], Json | None]) -> None:
        self._lookup = lookup
        self._places: dict[str, str] = {}  # by `$id`
        self._size = 0
        self.documents: Json = {}

    def localized(self, value: Any, base: str) -> Any:
        """`value` with each `$ref` leading into the bundle; `base` is where its document stands."""
        if isinstance(value, list):
            self._count()
            return [self.localized(each, base) for each in value]
        if not isinstance(value, dict):
            return value
        self._count()
        found = {key: self.localized(each, base) for key, each in value.items()}
        if isinstance(value.get("$ref"), str):
            found["$ref"] = self._target(value["$ref"], base)
        return found

    def _count(self) -> None:
        self._size += 1
        if self._size > LARGEST:
            raise RefError(f"the schema and all that it names have more than {LARGEST:,} parts")

    def _target(self, ref: str, base: str) -> str:
        id_, _, fragment = ref.partition("#")
        inside = fragment if not fragment or fragment.startswith("/") else f"/{fragment}"
        if not id_:
            return f"{base}{inside}" if base != "#" else ref
        return f"{self._place(id_)}{inside}"

    def _place(self, id_: str) -> str:
        """Where the document `id_` stands in the bundle; it is taken in if it is not there yet."""
        if id_ in self._places:
            return self._places[id_]
        document = self._lookup(id_)
        if document is None:
            raise RefError(f"there is no class, field group, data type or schema {id_[:200]}")
        if len(self._places) == MOST:
            raise RefError(f"the schema names more than {MOST} others")
        name = f"ref{len(self._places) + 1}"
        self._places[id_] = place = f"#/definitions/{name}"
        body = {key: each for key, each in document.items() if key not in ("$id", "$schema")}
        self.documents[name] = self.localized(body, place)
        return place
