"""Make a schema that names others by `$ref` into one document that stands alone. Pure.

XDM schemas are written so: `allOf` with the `$ref` of a class and of field groups. Each document
that is named, and what that names, becomes one of the schema's `definitions`.
"""

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
MOST = 200  # documents that one schema may name, those that they name included
LARGEST = 200_000  # objects and lists, in all of them
DEEPEST = 300  # nested objects and lists of one document


class RefError(ValueError):
    """A `$ref` leads nowhere, or to too much: the end of a sentence."""


def bundled(document: Json, lookup: Callable[[str], Json | None]) -> Json:
    """Return `document` with all documents that it names by `$ref` among its `definitions`.

    `lookup` returns a document by its `$id`, or None. A `$ref` into the same document stays as it
    is. Raises RefError.
    """
    bundle = _Bundle(lookup, document.get("definitions"))
    found: Json = bundle.localized(document, "#")
    bundle.follow()
    if bundle.documents:
        own = found.get("definitions")
        found["definitions"] = (own if isinstance(own, dict) else {}) | bundle.documents
    return found


def references(document: Any) -> list[str]:
    """Return the `$id` of each other document that a document names by `$ref`, each once."""
    found: dict[str, None] = {}
    stack = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            ref = value.get("$ref")
            if isinstance(ref, str) and (id_ := ref.partition("#")[0]):
                found[id_] = None
        stack += reversed(_members(value))
    return list(found)


def _members(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


class _Bundle:
    """The documents that were named until now, each under the name of its definition."""

    def __init__(self, lookup: Callable[[str], Json | None], taken: Any) -> None:
        self._lookup = lookup
        self._taken = taken if isinstance(taken, dict) else {}
        self._places: dict[str, str] = {}  # by `$id`
        self._waiting: list[tuple[str, Json]] = []  # definitions that are not localized yet
        self._size = 0
        self.documents: Json = {}

    def follow(self) -> None:
        """Take in the named documents, and those that they name."""
        while self._waiting:
            name, body = self._waiting.pop(0)
            self.documents[name] = self.localized(body, f"#/definitions/{name}")

    def localized(self, value: Any, base: str, depth: int = 0) -> Any:
        """Return `value` with each `$ref` into the bundle; its document is at `base` there."""
        if not isinstance(value, list | dict):
            return value
        self._size += 1
        if self._size > LARGEST:
            raise RefError(f"the schema and all that it names have more than {LARGEST:,} parts")
        if depth > DEEPEST:
            raise RefError(f"it is nested more than {DEEPEST} levels deep")
        if isinstance(value, list):
            return [self.localized(each, base, depth + 1) for each in value]
        found = {key: self.localized(each, base, depth + 1) for key, each in value.items()}
        if isinstance(value.get("$ref"), str):
            found["$ref"] = self._target(value["$ref"], base)
        return found

    def _target(self, ref: str, base: str) -> str:
        id_, _, fragment = ref.partition("#")
        inside = fragment if not fragment or fragment.startswith("/") else f"/{fragment}"
        if not id_:
            return f"{base}{inside}" if base != "#" else ref
        return f"{self._place(id_)}{inside}"

    def _place(self, id_: str) -> str:
        """Return where the document `id_` is in the bundle."""
        if id_ in self._places:
            return self._places[id_]
        document = self._lookup(id_)
        if document is None:
            raise RefError(f"there is no class, field group, data type or schema {id_[:200]}")
        if len(self._places) == MOST:
            raise RefError(f"the schema names more than {MOST} others")
        number = len(self._places) + 1
        while (name := f"ref{number}") in self._taken or name in self.documents:
            number += MOST + len(self._taken)
        self._places[id_] = place = f"#/definitions/{name}"
        body = {key: each for key, each in document.items() if key not in ("$id", "$schema")}
        self._waiting.append((name, body))
        return place
