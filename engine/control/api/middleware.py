"""What every request meets before its route, and every answer after it. Pure ASGI; knows no route.

A path may end in a slash, and have one twice. A body is read whole, up to a limit, and is JSON
whatever its type says: `curl -d` calls it a form. Whatever goes wrong unforeseen is an answer
without a trace (P7).
"""

import asyncio
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from email.message import Message as Fields
from typing import Any
from urllib.parse import unquote

import orjson
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.control.api.etag_checks import status_of_read
from engine.control.api.problems import Problem, cut, invalid
from engine.errors import sentence_of
from engine.log import log

LARGEST = 1 << 20  # bytes of a body
LONGEST_TARGET = 16 << 10  # bytes of a request's target
DEEPEST = 64  # lists and objects in one another: far less than what Python can print
CHANGES = ("POST", "PUT", "PATCH", "DELETE")
QUESTIONS = ("/validate", "/preview")  # ends of paths whose POST changes nothing
RECORDS = ("/preview",)  # ends of paths whose body has events, as they were sent
READS = ("GET", "HEAD")
BODILESS = (*READS, "DELETE", "OPTIONS", "TRACE")  # methods whose body means nothing
ACTIONS = ("/action",)  # ends of paths whose POST has no body
_MEMBERS = 16  # of gzip, one after the other: what comes after one is copied
_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16 and UTF-32


class ErrorMiddleware:
    """Whatever a route did not foresee is a 500 that tells nothing of it, and a line in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:  # the server ends, and waits no longer
            if not begun:
                await answer(_stopping())(scope, receive, send)
            raise
        except Exception as error:  # noqa: BLE001 - P7: nobody knows what its text holds
            method, path = scope.get("method"), cut(scope.get("path"))
            log.error("a request failed", method=method, path=path, error=sentence_of(error))
            if not begun:
                detail = "An internal error has occurred. The log of the daemon names it."
                problem = Problem("1400-500", "Internal Error", detail)
                await answer(problem)(scope, receive, send)


class Reads:
    """Answers HEAD as GET without a body, and a conditional read of what a client has with 304."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, as a GET if it is a HEAD."""
        if scope["type"] != "http" or scope["method"] not in READS:
            await self._app(scope, receive, send)
            return
        headers, is_head = Headers(scope=scope), scope["method"] == "HEAD"

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                if status == 200:
                    status = status_of_read(headers, Headers(raw=message["headers"]))
                if status == 412:
                    raise _Answered(_unmet())
                if is_head or status == 304:
                    await send(_without_body(message, status))
                    raise _Answered
            await send(message)

        try:
            await self._app(dict(scope, method="GET"), receive, watched)
        except _Answered as answered:
            if answered.problem is None:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            elif is_head:
                response = answer(answered.problem)
                start = {"type": "http.response.start", "status": 412}
                await send(start | {"headers": response.raw_headers})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await answer(answered.problem)(scope, receive, send)


class _Answered(Exception):
    """Ends a route whose body nobody gets: not a byte of a file is read for it."""

    def __init__(self, problem: Problem | None = None) -> None:
        super().__init__()
        self.problem = problem


def _without_body(message: Message, status: int) -> Message:
    """The start of an answer without a body: of a 304 without its length and type, too."""
    gone = (b"content-length", b"content-type") if status == 304 else ()
    headers = [pair for pair in message["headers"] if pair[0].lower() not in gone]
    return {**message, "status": status, "headers": headers}


def _unmet() -> Problem:
    detail = "What If-Match or If-Unmodified-Since asks for is not the current version."
    return Problem("1404-412", "Version not matching", detail)


class BodyMiddleware:
    """Makes paths plain, and hands bodies on that are whole, small and JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400, 413, 414 or 415."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            straighten(scope)
            scope["path"] = scope["path"].rstrip("/") or "/"
            ignored = scope["method"] in BODILESS or scope["path"].endswith(ACTIONS)
            body = await _body(scope, receive, keep=not ignored)
            others = [pair for pair in scope["headers"] if pair[0] not in _OF_A_BODY]
            if body:
                body = _unpacked(body, Headers(scope=scope))
                _check(body, twice=scope["path"].endswith(RECORDS))
                others.append((b"content-type", b"application/json"))
            if body or ignored:
                scope["headers"] = others
        except Problem as problem:
            await answer(problem, _hints(problem))(scope, receive, send)
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)


_OF_A_BODY = frozenset({b"content-type", b"content-encoding"})


class ChangeNotifier:
    """Calls `changed` before a client hears that its change was made: it takes effect at once."""

    def __init__(self, app: ASGIApp, changed: Callable[[], None]) -> None:
        self._app, self._changed = app, changed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                self._changed()
            await send(message)

        told = scope.get("method") in CHANGES and not scope["path"].endswith(QUESTIONS)
        await self._app(scope, receive, watched if told else send)


def answer(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer that a problem is."""
    return JSONResponse(problem.body(), problem.status, headers)


def empty() -> Problem:
    """A body is missing."""
    detail = (
        "The request body cannot be null or empty. Please provide a request body and try again."
    )
    return invalid("1405-400", detail)


def _stopping() -> Problem:
    detail = (
        "The program stops. Whether the request took effect is not known: ask once it runs again."
    )
    return Problem("1400-503", "Service unavailable", detail)


# Targets ------------------------------------------------------------------------------------


def straighten(scope: Scope) -> None:
    """Give a request the path that its target means, once for all that look at it.

    A target in absolute form (RFC 9112, 3.2.2) names the host as well, in place of the header's.
    Two slashes in a row are one, but for those of an address in the path, as the id of a schema.
    Problem for a target that is too long.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    if len(raw) + len(scope.get("query_string", b"")) > LONGEST_TARGET:
        raise too_long()
    plain, host = raw, None
    scheme, found, rest = raw.partition(b"://")
    if found and scheme.lower() in (b"http", b"https"):
        host, slash, path = rest.partition(b"/")
        plain = slash + path or b"/"
    if b"//" in plain:
        plain = _single(plain)
    if plain == raw:
        return
    scope["raw_path"] = plain
    scope["path"] = unquote(plain.decode("latin-1"))
    if host is not None:
        others = [pair for pair in scope["headers"] if pair[0] != b"host"]
        scope["headers"] = [(b"host", host), *others]


def _single(path: bytes) -> bytes:
    """A path without doubled slashes, but for those after a colon."""
    steps = list[bytes]()
    for step in path.split(b"/"):
        if step or not steps or steps[-1].endswith(b":"):
            steps.append(step)
    if path.endswith(b"/") and steps[-1]:
        steps.append(b"")
    return b"/".join(steps)


def too_long() -> Problem:
    """A target is too long."""
    detail = f"The target of the request has more than {LONGEST_TARGET:,} bytes."
    return Problem("1400-414", "Request target too long", detail)


# Bodies -------------------------------------------------------------------------------------


async def _body(scope: Scope, receive: Receive, *, keep: bool) -> bytes:
    """All of it; Problem where it is too large, said beforehand or not. Read, and forgotten unless
    it is to `keep`.
    """
    told = dict(scope["headers"]).get(b"content-length", b"0")
    size = int(told) if told.isdigit() and len(told) < 20 else 0
    body, seen, more = bytearray(), 0, True
    while more and max(size, seen) <= LARGEST:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise invalid("1400-400", "The request broke off.")
        piece = message.get("body", b"")
        seen += len(piece)
        body += piece if keep else b""
        more = message.get("more_body", False)
    if max(size, seen) > LARGEST:
        raise _too_large()
    return bytes(body)


def _too_large() -> Problem:
    detail = f"The request body is larger than {LARGEST:,} bytes."
    return Problem("1400-413", "Request too large", detail)


def _unpacked(body: bytes, headers: Headers) -> bytes:
    """A body as UTF-8, without its compression and its byte order mark; Problem for others."""
    encodings = [each.strip().lower() for each in headers.get("content-encoding", "").split(",")]
    encodings = [each for each in encodings if each not in ("", "identity")]
    if encodings in (["gzip"], ["x-gzip"]):
        body = _gunzipped(body)
    elif encodings:
        raise _unread(
            f"The content encoding {cut(', '.join(encodings))} is not read here: send the body "
            "as it is, or with gzip."
        )
    elif body[:2] == b"\x1f\x8b":
        raise invalid(
            "1400-400",
            "The request body is not JSON, it looks like gzip: send Content-Encoding: gzip.",
        )
    charset = _charset(headers.get("content-type", ""))
    if charset not in ("", "utf-8", "utf8", "us-ascii", "ascii"):
        raise _unread(f"The charset {cut(charset)} is not read here: send JSON in UTF-8.")
    if body[:2] in _OTHER_BOMS or b"\0" in body[:4]:  # JSON begins with ASCII, and without a NUL
        raise _unread("The request body is not in UTF-8, but UTF-16 or UTF-32: send it in UTF-8.")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise invalid("1400-400", "The request body is not in UTF-8: send JSON in UTF-8.") from None
    return body.removeprefix(_BOM)


def _gunzipped(body: bytes) -> bytes:
    """What a gzip'd body holds; no more is unpacked than a body may have."""
    unpacked = bytearray()
    for _ in range(_MEMBERS):
        member = zlib.decompressobj(wbits=31)
        try:
            unpacked += member.decompress(body, LARGEST + 1 - len(unpacked))
        except zlib.error:
            raise invalid("1400-400", "The request body is not gzip, or damaged.") from None
        if len(unpacked) > LARGEST:
            raise _too_large()
        if not member.eof:
            raise invalid("1400-400", "The request body is not whole: its gzip stream breaks off.")
        body = member.unused_data
        if not body:
            return bytes(unpacked)
    raise invalid("1400-400", f"The request body has more than {_MEMBERS} members of gzip.")


def _charset(content_type: str) -> str:
    """What a content type says of the charset; "" where it says nothing."""
    fields = Fields()
    fields["content-type"] = content_type[:1000]
    with suppress(ValueError, LookupError):
        return str(fields.get_content_charset("")).strip()
    return "unknown"


def _unread(detail: str) -> Problem:
    return Problem("1400-415", "Unsupported media type", detail)


def _hints(problem: Problem) -> dict[str, str] | None:
    """RFC 9110, 12.5.3: which encoding a body may have, with the answer to one that it may not."""
    return {"Accept-Encoding": "gzip, identity"} if problem.status == 415 else None


def _check(body: bytes, *, twice: bool) -> None:
    """What is not JSON, or cannot be answered as JSON, goes no further; nor does an object that has
    a key twice, unless it may.
    """
    try:
        level = [orjson.loads(body)]
    except ValueError as error:
        raise invalid("1400-400", f"The request body is not JSON: {cut(error)}.") from None
    if level == [None]:
        raise empty()
    for _ in range(DEEPEST):
        level = [
            value
            for each in level
            if isinstance(each, dict | list)
            for value in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise invalid("1400-400", f"The request body is nested more than {DEEPEST} levels deep.")
    if not twice:
        json.loads(body, object_pairs_hook=_once, parse_int=str, parse_float=str)


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Problem for an object that has a key twice: nobody knows which of the two is meant."""
    if len(pairs) > 1:
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                detail = f'The request body has the key "{cut(key)}" twice in one object.'
                raise invalid("1400-400", detail)
            seen.add(key)
