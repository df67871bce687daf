"""JSON Patch (RFC 6902), as far as Flow Service has it: add, replace and remove, in any case."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from jsonpatch import JsonPatch, JsonPatchException
from jsonpointer import JsonPointerException

from engine.catalog.resources import Json
from engine.control.api.problems import cut, invalid, unsupported

MOST_OPERATIONS = 1_000  # of one patch
MOST_PATH = 1_000  # characters of a place in a body
OPERATIONS = ("add", "replace", "remove")


def patched(body: Json, operations: list[Json], fields: Iterable[str]) -> Json:
    """What the operations make of `body`, which stays as it is; only `fields` may change."""
    if not operations:
        raise invalid(
            "1405-400",
            "The request body cannot be null or empty. "
            "Please provide a request body and try again.",
        )
    if len(operations) > MOST_OPERATIONS:
        raise invalid("1400-400", f"The patch has more than {MOST_OPERATIONS:,} operations.")
    told = [_operation(each, tuple(fields)) for each in operations]
    result = deepcopy(body)
    for each in told:
        try:
            result = JsonPatch([each]).apply(result, in_place=True)  # our own copy
        except (JsonPatchException, JsonPointerException):  # its words may hold a secret (P7)
            raise invalid(
                "1455-400",
                "An error has occurred while validating patch instructions: "
                f'Missing field "{cut(each["path"])}".',
            ) from None
    return result


def merged(body: Json, given: Json | list[Json], fields: Iterable[str]) -> Json:
    """What a merge (RFC 7396), or a JSON Patch, makes of `body`; only `fields` may change.

    A field that a merge repeats as it is changes nothing, whichever it is.
    """
    if isinstance(given, list):
        return patched(body, given, fields)
    if not given:
        raise invalid(
            "1405-400",
            "The request body cannot be null or empty. "
            "Please provide a request body and try again.",
        )
    fields = tuple(fields)
    for name, value in given.items():
        if not _may_change(name, fields) and (name not in body or body[name] != value):
            raise invalid(
                "1365-400",
                f"The field {cut(name)} cannot be changed: {_listed(fields)} can.",
            )
    result: Json = _merge(body, {k: v for k, v in given.items() if _may_change(k, fields)})
    return result


def _merge(target: Any, given: Any) -> Any:
    if not isinstance(given, dict):
        return deepcopy(given)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in given.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value)
    return result


def _may_change(name: str | None, fields: tuple[str, ...]) -> bool:
    """Whether a field is one of `fields`; `meta:*` there is all that begin so."""
    return name is not None and any(
        name.startswith(each[:-1]) if each.endswith("*") else name == each for each in fields
    )


def _listed(fields: tuple[str, ...]) -> str:
    return ", ".join(fields)


def replaces(operations: list[Json], path: str) -> bool:
    """Whether one of them puts something else in the place of all that is at `path`."""
    return any(
        path == each.get("path") or path.startswith(f"{each.get('path')}/") for each in operations
    )


def _unescaped(step: str) -> str:
    return step.replace("~1", "/").replace("~0", "~")


def _operation(given: Json, fields: tuple[str, ...]) -> Json:
    """One operation, as the RFC writes it."""
    name, path = str(given.get("op", "")).lower(), given.get("path")
    if name not in OPERATIONS:
        raise unsupported(given.get("op"), OPERATIONS)
    if isinstance(path, str) and len(path) > MOST_PATH:
        raise invalid("1365-400", f"A path has more than {MOST_PATH:,} characters.")
    first = path.split("/")[1] if isinstance(path, str) and path.startswith("/") else None
    if first == "connectionSpec":
        raise invalid("1414-400", "The connection spec of a connection cannot be updated.")
    if not _may_change(first and _unescaped(first), fields):
        raise invalid(
            "1365-400",
            f"The path {cut(path)} provided in ops is invalid. Please provide valid path and try "
            f"again: it begins with one of {', '.join(f'/{field}' for field in fields)}.",
        )
    if name != "remove" and "value" not in given:
        raise invalid(
            "1455-400",
            'An error has occurred while validating patch instructions: Missing field "value".',
        )
    return {"op": name, **{key: given[key] for key in ("path", "value") if key in given}}
