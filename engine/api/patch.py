"""JSON Patch (RFC 6902), as far as Flow Service has it: add, replace and remove, in any case."""

from collections.abc import Iterable
from copy import deepcopy

from jsonpatch import JsonPatch, JsonPatchException
from jsonpointer import JsonPointerException

from engine.api.problems import Problem, invalid, unsupported
from engine.resources import Json

OPERATIONS = ("add", "replace", "remove")


def etag_of(if_match: str | None) -> str | None:
    """The etag that a change is bound to, with or without its quotes; None: `*`, any."""
    given = (if_match or "").strip().removeprefix("W/").strip('"')
    if not given:
        detail = (
            "The header 'If-Match' is missing in the request. "
            "Please provide the header and try again."
        )
        raise Problem("1403-400", "Header is missing", detail)
    return None if given == "*" else given


def patched(body: Json, operations: list[Json], fields: Iterable[str]) -> Json:
    """What the operations make of `body`, which stays as it is; only `fields` may change."""
    if not operations:
        raise invalid(
            "1405-400",
            "The request body cannot be null or empty. "
            "Please provide a request body and try again.",
        )
    told = [_operation(each, tuple(fields)) for each in operations]
    result = deepcopy(body)
    for each in told:
        try:
            result = JsonPatch([each]).apply(result)
        except (JsonPatchException, JsonPointerException):  # its words may hold a secret (P7)
            raise invalid(
                "1455-400",
                "An error has occurred while validating patch instructions: "
                f'Missing field "{each["path"]}".',
            ) from None
    return result


def replaces(operations: list[Json], path: str) -> bool:
    """Whether one of them puts something else in the place of all that is at `path`."""
    return any(
        path == each.get("path") or path.startswith(f"{each.get('path')}/") for each in operations
    )


def _operation(given: Json, fields: tuple[str, ...]) -> Json:
    """One operation, as the RFC writes it."""
    name, path = str(given.get("op", "")).lower(), given.get("path")
    if name not in OPERATIONS:
        raise unsupported(given.get("op"), OPERATIONS)
    first = path.split("/")[1] if isinstance(path, str) and path.startswith("/") else None
    if first == "connectionSpec":
        raise invalid("1414-400", "The connection spec of a connection cannot be updated.")
    if first not in fields:
        raise invalid(
            "1365-400",
            f"The path {path} provided in ops is invalid. Please provide valid path and try "
            f"again: it begins with one of {', '.join(f'/{field}' for field in fields)}.",
        )
    if name != "remove" and "value" not in given:
        raise invalid(
            "1455-400",
            'An error has occurred while validating patch instructions: Missing field "value".',
        )
    return {"op": name, **{key: given[key] for key in ("path", "value") if key in given}}
