"""What every request passes before its route, and every response after it. Pure ASGI.

The middleware knows no route, but for the ends of some paths.
"""

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.control.api.etag_checks import status_of_read
from engine.control.api.problems import Problem, cut, respond
from engine.control.api.request_bodies import check_json, decode_body, read_body
from engine.control.api.request_target import normalize_target
from engine.errors import sentence_of
from engine.log import log

READS = ("GET", "HEAD")
CHANGES = ("POST", "PUT", "PATCH", "DELETE")
WITHOUT_EFFECT = ("/validate", "/preview")  # ends of paths whose POST changes nothing
WITH_EVENTS = ("/preview",)  # ends of paths whose body has events as they were sent
BODILESS = (*READS, "DELETE", "OPTIONS", "TRACE")  # methods whose body is ignored
ACTIONS = ("/action",)  # ends of paths whose POST has no body
_BODY_HEADERS = frozenset({b"content-type", b"content-encoding"})
_INTERNAL = "An internal error has occurred. The log of the daemon names it."
_STOPPING = (
    "The program stops. Whether the request took effect is not known: ask once it runs again."
)
_NOT_CURRENT = "What If-Match or If-Unmodified-Since asks for is not the current version."


class ErrorMiddleware:
    """Answers an unexpected exception with a 500 that shows nothing of it, and logs it (P7)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        has_started = False

        async def note_start(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, note_start)
        except asyncio.CancelledError:  # the server stops and waits no longer
            if not has_started:
                problem = Problem("1400-503", "Service unavailable", _STOPPING)
                await respond(problem)(scope, receive, send)
            raise
        except Exception as error:  # noqa: BLE001 - P7: its text may hold a secret
            method, path = scope.get("method"), cut(scope.get("path"))
            log.error("a request failed", method=method, path=path, error=sentence_of(error))
            if not has_started:
                problem = Problem("1400-500", "Internal Error", _INTERNAL)
                await respond(problem)(scope, receive, send)


class ReadMiddleware:
    """Answers HEAD as GET without a body, and conditional reads with 304 or 412."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, a HEAD as a GET."""
        if scope["type"] != "http" or scope["method"] not in READS:
            await self._app(scope, receive, send)
            return
        headers, is_head = Headers(scope=scope), scope["method"] == "HEAD"

        async def check_conditions(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                if status == 200:
                    status = status_of_read(headers, Headers(raw=message["headers"]))
                if status == 412:
                    raise _EndedEarly(Problem("1404-412", "Version not matching", _NOT_CURRENT))
                if is_head or status == 304:
                    await send(_without_body(message, status))
                    raise _EndedEarly
            await send(message)

        try:
            await self._app(dict(scope, method="GET"), receive, check_conditions)
        except _EndedEarly as ended:
            response = respond(ended.problem) if ended.problem else None
            if response and not is_head:
                await response(scope, receive, send)
                return
            if response:
                start = {"type": "http.response.start", "status": response.status_code}
                await send(start | {"headers": response.raw_headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _EndedEarly(Exception):
    """Ends a route whose body is not sent: no file is read for it."""

    def __init__(self, problem: Problem | None = None) -> None:
        super().__init__()
        self.problem = problem


def _without_body(message: Message, status: int) -> Message:
    dropped = (b"content-length", b"content-type") if status == 304 else ()
    headers = [pair for pair in message["headers"] if pair[0].lower() not in dropped]
    return {**message, "status": status, "headers": headers}


class BodyMiddleware:
    """Normalizes the path, and passes only bodies on that are whole, small and JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400, 413, 414 or 415."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            normalize_target(scope)
            scope["path"] = scope["path"].rstrip("/") or "/"
            ignored = scope["method"] in BODILESS or scope["path"].endswith(ACTIONS)
            body = await read_body(scope, receive, ignore=ignored)
            headers = [pair for pair in scope["headers"] if pair[0] not in _BODY_HEADERS]
            if body:
                body = decode_body(body, Headers(scope=scope))
                check_json(body, repeated_keys=scope["path"].endswith(WITH_EVENTS))
                headers.append((b"content-type", b"application/json"))
            if body or ignored:
                scope["headers"] = headers
        except Problem as problem:
            # RFC 9110, 12.5.3: a 415 says which encodings are accepted.
            accepted = {"Accept-Encoding": "gzip, identity"} if problem.status == 415 else None
            await respond(problem, accepted)(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)


class ChangeNotifier:
    """Calls `changed` before the response to a change is sent: the change takes effect at once."""

    def __init__(self, app: ASGIApp, changed: Callable[[], None]) -> None:
        self._app, self._changed = app, changed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def notify(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                self._changed()
            await send(message)

        is_change = scope.get("method") in CHANGES and not scope["path"].endswith(WITHOUT_EFFECT)
        await self._app(scope, receive, notify if is_change else send)
