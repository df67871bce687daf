"""Limits of the API's connections: their number, their time and their bytes.

No token is needed to open a connection and to send half a request, so each connection is bounded.
A connection over the maximum is refused with a response and without a call of the application.
This module knows no route and no token; the ASGI application answers whole requests.
"""

import asyncio
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import h11
import orjson
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from engine.control.api.problems import Problem, invalid
from engine.control.api.request_target import LONGEST_TARGET, target_too_long
from engine.log import log

HEAD = 32 << 10  # bytes of a request's head
SLICE = 8 << 10  # bytes of a head that are parsed at a time
BACKLOG = 64  # connections that the kernel queues


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of connections; times in seconds.

    most    maximum number of connections
    head    from a connection, or from the first byte of another request, to the end of its head
    body    from there to the end of its body
    idle    from a response to the next request; `Keep-Alive` promises a little less
    stuck   that a client may leave a response unread which blocks the connection
    linger  from the server's end of a connection to the client's
    young   age below which a connection is not closed for a new one
    """

    most: int = 256
    head: float = 10
    body: float = 30
    idle: float = 80
    stuck: float = 30
    linger: float = 5
    young: float = 1


KEEP_ALIVE = 75  # seconds that the header `Keep-Alive` promises
NEW, READING_HEAD, IDLE, READING_BODY, BUSY, CLOSING = range(6)
"""States of a connection: up to the end of its first head; within another head; between two
requests; within a body; waiting for the application's response; closing.
"""


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard limit, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # where the kernel's own limit is lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def limits_for(files: int) -> ConnectionLimits:
    """Return the limits of a process that may have `files` open: a quarter are connections."""
    limits = ConnectionLimits()
    if files == resource.RLIM_INFINITY:
        return limits
    return replace(limits, most=max(8, min(limits.most, files // 4)))


def overdue(state: int, seconds: float, limits: ConnectionLimits) -> bool:
    """Return whether a connection has been in a state for longer than its limit."""
    longest = {
        NEW: limits.head,
        READING_HEAD: limits.head,
        IDLE: limits.idle,
        READING_BODY: limits.body,
        CLOSING: limits.linger,
    }
    return seconds > longest.get(state, float("inf"))


class ThrottledLog:
    """Logs one line of a kind a minute, with the number of lines that were left out before it."""

    def __init__(self, now: Callable[[], float] = time.monotonic, pause: float = 60) -> None:
        self._now, self._pause = now, pause
        self._last: dict[str, tuple[float, int]] = {}

    def error(self, event: str, **more: object) -> None:
        """Log a line, unless one of the same event was logged less than a minute ago."""
        last, left_out = self._last.get(event, (float("-inf"), 0))
        if self._now() - last < self._pause:
            self._last[event] = last, left_out + 1
            return
        self._last[event] = self._now(), 0
        log.error(event, **more, **({"left_out": left_out} if left_out else {}))


class Connection(H11Protocol):
    """A connection of uvicorn that ends what a client leaves unfinished for too long."""

    limits = ConnectionLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.since = self.loop.time()  # start of the current state
        self._state = NEW
        self._requests = 0
        self._stuck_since: float | None = None
        self._refused = False

    # Called by asyncio ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; refuse it if there are too many and no other can be closed."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.most and not self._make_room():
            self._refuse(
                Problem("1400-503", "Service unavailable", "Too many connections: try again later.")
            )

    def data_received(self, data: bytes) -> None:
        """Parse data, a head in slices: h11 bounds only a head that is not complete yet."""
        start = 0
        while start < len(data) and not self._refused and not self.transport.is_closing():
            is_head = self.conn.their_state is h11.IDLE
            end = start + SLICE if is_head else len(data)
            super().data_received(data[start:end])
            start = end
        self.update_state()

    def pause_writing(self) -> None:
        """Store when the client stopped reading the response."""
        super().pause_writing()
        self._stuck_since = self.loop.time()

    def resume_writing(self) -> None:
        """Clear the start of the stop: the client reads again."""
        super().resume_writing()
        self._stuck_since = None

    # Called by uvicorn ---------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Count a request, and wait for the next one."""
        self._requests += 1
        super().on_response_complete()
        self.update_state()

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request with a Problem."""
        head = bytes(self.conn.trailing_data[0])
        if len(head) > LONGEST_TARGET and b"\n" not in head[:LONGEST_TARGET]:
            self._refuse(target_too_long())
        elif len(head) > HEAD:
            detail = f"The head of the request has more than {HEAD:,} bytes."
            self._refuse(Problem("1400-431", "Request header fields too large", detail))
        else:
            detail = "This is no HTTP request that can be read: is its Host header missing?"
            self._refuse(invalid("1400-400", detail))

    # Called by Listener, and among connections ------------------------------------------------

    def update_state(self) -> int:
        """Update the state and its start; return the state."""
        state = self._current_state()
        if state != self._state:
            self._state, self.since = state, self.loop.time()
        return state

    def sweep(self) -> None:
        """End a connection that is over one of its limits."""
        now, state = self.loop.time(), self.update_state()
        stuck = self._stuck_since is not None and now - self._stuck_since > self.limits.stuck
        if stuck or (state == CLOSING and overdue(state, now - self.since, self.limits)):
            self.transport.abort()
        elif overdue(state, now - self.since, self.limits):
            self.end()

    def end(self) -> None:
        """Close the connection, with a 408 if half a request came and no response was begun."""
        is_unanswered = self._state == READING_BODY and not self.cycle.response_started
        if self._state in (NEW, READING_HEAD) or is_unanswered:
            self._refuse(Problem("1400-408", "Request timeout", "The request did not come whole."))
        else:
            self.transport.close()
        self.update_state()

    def _current_state(self) -> int:
        if self._refused or self.transport.is_closing():
            return CLOSING
        if self.conn.their_state is h11.SEND_BODY:
            return READING_BODY
        if self.cycle is not None and not self.cycle.response_complete:
            return BUSY
        if not self._requests:
            return NEW
        return READING_HEAD if self.conn.trailing_data[0] else IDLE

    def _make_room(self) -> bool:
        """Close the longest waiting connection, unless all are too young; return whether it did.

        Connections without a request are closed before those between two requests.
        """
        now = self.loop.time()
        others = [each for each in self.connections if isinstance(each, Connection)]
        idle = [
            each
            for each in others
            if each is not self
            and each.update_state() in (NEW, READING_HEAD, IDLE)
            and now - each.since >= self.limits.young
        ]
        if not idle:
            return False
        victim = min(idle, key=lambda each: (each._state == IDLE, each.since))
        victim.transport.abort()
        self.connections.discard(victim)
        return True

    def _refuse(self, problem: Problem) -> None:
        """Send an error without the application, and close.

        What a client still sends is read for a while and dropped: a reset would discard the
        response.
        """
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        body, status = orjson.dumps(problem.body()), HTTPStatus(problem.status)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        if problem.status in (408, 503):
            self.transport.close()
        else:
            self.transport.write_eof()
        self.update_state()


class Listener(uvicorn.Server):
    """Uvicorn's server, which checks the limits of its connections once a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._log = ThrottledLog()

    async def startup(self, sockets: Any = None) -> None:
        """Listen; log errors of the event loop, like a failed accept, once a minute."""
        asyncio.get_running_loop().set_exception_handler(self.on_loop_error)
        await super().startup(sockets=sockets)

    async def on_tick(self, counter: int) -> bool:
        """Sweep all connections once a second."""
        if counter % 10 == 0:
            for each in list(self.server_state.connections):
                if isinstance(each, Connection):
                    each.sweep()
        return await super().on_tick(counter)

    def on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error of the event loop by its kind, without its text (P7)."""
        error = context.get("exception")
        kind = type(error).__name__ if error else ""
        why = (error.strerror or kind) if isinstance(error, OSError) else kind
        self._log.error("the control plane has trouble", what=context["message"], error=why)


def config_of(app: Any, limits: ConnectionLimits, stop: int) -> uvicorn.Config:
    """Return uvicorn's configuration; its own log is off, as tracebacks may hold secrets (P7).

    `stop`: seconds that responses under way may take after a stop.
    """
    protocol = type("Connection", (Connection,), {"limits": limits})
    return uvicorn.Config(
        app, loop="asyncio", http=protocol, ws="none", lifespan="off",
        log_config=None, log_level="critical", access_log=False, backlog=BACKLOG,
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=stop,
        h11_max_incomplete_event_size=HEAD, timeout_keep_alive=int(limits.idle) + 5,
        headers=[("Keep-Alive", f"timeout={KEEP_ALIVE}")],
    )  # fmt: skip
