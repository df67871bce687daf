"""The target of a request: its maximum length, and one path for every way to write it."""

from urllib.parse import unquote

from starlette.types import Scope

from engine.control.api.problems import Problem

LONGEST_TARGET = 16 << 10  # bytes


def normalize_target(scope: Scope) -> None:
    """Give a request its plain path, and the host of a target in absolute form (RFC 9112, 3.2.2).

    Two slashes in a row become one, but for those of a URL in the path, as the id of a schema.
    Raises Problem for a target that is too long. Idempotent.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    if len(raw) + len(scope.get("query_string", b"")) > LONGEST_TARGET:
        raise target_too_long()
    path, host = raw, None
    scheme, separator, rest = raw.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        host, slash, path = rest.partition(b"/")
        path = slash + path or b"/"
    if b"//" in path:
        path = _without_doubled_slashes(path)
    if path == raw:
        return
    scope["raw_path"] = path
    scope["path"] = unquote(path.decode("latin-1"))
    if host is not None:
        others = [pair for pair in scope["headers"] if pair[0] != b"host"]
        scope["headers"] = [(b"host", host), *others]


def _without_doubled_slashes(path: bytes) -> bytes:
    steps = list[bytes]()
    for step in path.split(b"/"):
        if step or not steps or steps[-1].endswith(b":"):
            steps.append(step)
    if path.endswith(b"/") and steps[-1]:
        steps.append(b"")
    return b"/".join(steps)


def target_too_long() -> Problem:
    """Return the error for a target of more than LONGEST_TARGET bytes."""
    detail = f"The target of the request has more than {LONGEST_TARGET:,} bytes."
    return Problem("1400-414", "Request target too long", detail)
