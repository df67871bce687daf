"""What every request meets before its route, and every answer after it. Pure ASGI; knows no route.

A path may end in a slash. A body is read whole, up to a limit, and is JSON whatever its type says:
`curl -d` calls it a form. Whatever goes wrong unforeseen is an answer without a trace (P7).
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.api.problems import Problem, invalid
from engine.console import sentence_of
from engine.log import log

LARGEST = 1 << 20  # bytes of a body
DEEPEST = 64  # lists and objects in one another: far less than what Python can print
CHANGES = ("POST", "PUT", "PATCH", "DELETE")
QUESTIONS = ("/validate", "/preview")  # ends of paths whose POST changes nothing


class Calm:
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
            method, path = scope.get("method"), scope.get("path")
            log.error("a request failed", method=method, path=path, error=sentence_of(error))
            if not begun:
                detail = "An internal error has occurred. The log of the daemon names it."
                problem = Problem("1400-500", "Internal Error", detail)
                await answer(problem)(scope, receive, send)


class Whole:
    """Takes the slash off a path's end, and hands bodies on that are whole, small and JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400 or 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = scope["path"].rstrip("/") or "/"
        try:
            body = await _body(scope, receive)
            if body:
                _check(body)
                others = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
                scope["headers"] = [*others, (b"content-type", b"application/json")]
        except Problem as problem:
            await answer(problem)(scope, receive, send)
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, replay, send)


class Telling:
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


async def _body(scope: Scope, receive: Receive) -> bytes:
    """All of it; Problem where it is too large, said beforehand or not."""
    told = dict(scope["headers"]).get(b"content-length", b"0")
    size, body, more = int(told) if told.isdigit() else 0, bytearray(), True
    while more and max(size, len(body)) <= LARGEST:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise invalid("1400-400", "The request broke off.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if max(size, len(body)) > LARGEST:
        detail = f"The request body is larger than {LARGEST:,} bytes."
        raise Problem("1400-413", "Request too large", detail)
    return bytes(body)


def _check(body: bytes) -> None:
    """What is not JSON, or cannot be answered as JSON, goes no further."""
    try:
        level = [orjson.loads(body)]
    except ValueError as error:
        raise invalid("1400-400", f"The request body is not JSON: {error}.") from None
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
