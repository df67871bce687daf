"""JSON Patch (RFC 6902) with Flow Service's operations, and JSON Merge Patch (RFC 7396)."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from jsonpatch import JsonPatch, JsonPatchException
from jsonpointer import JsonPointerException, unescape

from engine.catalog.resources import Json
from engine.control.api.problems import cut, empty_body, invalid, unsupported

MOST_OPERATIONS = 1_000  # of one patch
MOST_PATH = 1_000  # characters of a path
OPERATIONS = ("add", "replace", "remove")


def patched(body: Json, operations: list[Json], fields: Iterable[str]) -> Json:
    """Apply operations to a copy of `body`; raise Problem for a change outside `fields`."""
    if not operations:
        raise empty_body()
    if len(operations) > MOST_OPERATIONS:
        raise invalid("1400-400", f"The patch has more than {MOST_OPERATIONS:,} operations.")
    checked = [_checked(each, tuple(fields)) for each in operations]
    result = deepcopy(body)
    for operation in checked:
        try:
            result = JsonPatch([operation]).apply(result, in_place=True)  # of the copy
        except (JsonPatchException, JsonPointerException):  # P7: its message may hold a secret
            raise invalid(
                "1455-400",
                "An error has occurred while validating patch instructions: "
                f'Missing field "{cut(operation["path"])}".',
            ) from None
    return result


def merged(body: Json, patch: Json | list[Json], fields: Iterable[str]) -> Json:
    """Apply a JSON Merge Patch (RFC 7396), or a JSON Patch, to a copy of `body`.

    Only `fields` may change; a merge patch may repeat any other field unchanged.
    """
    if isinstance(patch, list):
        return patched(body, patch, fields)
    if not patch:
        raise empty_body()
    fields = tuple(fields)
    for name, value in patch.items():
        if not _may_change(name, fields) and (name not in body or body[name] != value):
            raise invalid(
                "1365-400",
                f"The field {cut(name)} cannot be changed: {', '.join(fields)} can.",
            )
    result: Json = _merge(body, {k: v for k, v in patch.items() if _may_change(k, fields)})
    return result


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value)
    return result


def _may_change(name: str | None, fields: tuple[str, ...]) -> bool:
    return name is not None and any(
        name.startswith(each[:-1]) if each.endswith("*") else name == each  # `meta:*`
        for each in fields
    )


def replaces(operations: list[Json], path: str) -> bool:
    """Return whether an operation replaces the whole value at `path`."""
    return any(
        path == each.get("path") or path.startswith(f"{each.get('path')}/") for each in operations
    )


def _checked(operation: Json, fields: tuple[str, ...]) -> Json:
    name, path = str(operation.get("op", "")).lower(), operation.get("path")
    if name not in OPERATIONS:
        raise unsupported(operation.get("op"), OPERATIONS)
    if isinstance(path, str) and len(path) > MOST_PATH:
        raise invalid("1365-400", f"A path has more than {MOST_PATH:,} characters.")
    first = path.split("/")[1] if isinstance(path, str) and path.startswith("/") else None
    if first == "connectionSpec":
        raise invalid("1414-400", "The connection spec of a connection cannot be updated.")
    if not _may_change(first and unescape(first), fields):
        raise invalid(
            "1365-400",
            f"The path {cut(path)} provided in ops is invalid. Please provide valid path and try "
            f"again: it begins with one of {', '.join(f'/{field}' for field in fields)}.",
        )
    if name != "remove" and "value" not in operation:
        raise invalid(
            "1455-400",
            'An error has occurred while validating patch instructions: Missing field "value".',
        )
    return {"op": name, **{key: operation[key] for key in ("path", "value") if key in operation}}
