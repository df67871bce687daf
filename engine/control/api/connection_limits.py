"""The control plane's connections: how many there are, and how long each may take for what.

A stranger needs no token to open a connection and to send half a request. So each one is bounded in
time, in bytes and in number, and what a full table of connections refuses costs nothing but an
answer. It knows no route and no token; the ASGI application behind it answers whole requests.
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
SLICE = 8 << 10  # bytes of it that are looked at together
BACKLOG = 64  # connections that the kernel holds, and that are accepted together


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a connection may take; all in seconds.

    most    connections at a time
    head    from a connection, or from the first byte of another request, to the end of its head
    body    from there to the end of its body
    idle    from an answer to the next request; what `Keep-Alive` says is a little less
    stuck   that a client may leave an answer unread, of which no more can be sent
    linger  from our end of a connection to the client's
    young   a connection that is younger gives way to no other
    """

    most: int = 256
    head: float = 10
    body: float = 30
    idle: float = 80
    stuck: float = 30
    linger: float = 5
    young: float = 1


KEEP_ALIVE = 75  # seconds that an answer promises
FRESH, HEADING, IDLE, SENDING, BUSY, ENDING = range(6)
"""What a connection does: nothing yet, or half of its first head; half of another head; nothing
between two requests; half of a body; it waits for our answer; it ends.
"""


def raise_file_limit() -> int:
    """Let this process have as many files as it may; how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # not where the kernel's own limit is lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def allowed_with(files: int) -> Allowed:
    """What is allowed with so many files: three quarters of them are for the daemon's own work."""
    allowed = Allowed()
    if files == resource.RLIM_INFINITY:
        return allowed
    return replace(allowed, most=max(8, min(allowed.most, files // 4)))


def overdue(state: int, seconds: float, allowed: Allowed) -> bool:
    """Whether a connection has been in a state for longer than it may."""
    longest = {
        FRESH: allowed.head,
        HEADING: allowed.head,
        IDLE: allowed.idle,
        SENDING: allowed.body,
        ENDING: allowed.linger,
    }
    return seconds > longest.get(state, float("inf"))


class Seldom:
    """Writes one line of a kind a minute, with how many were left out before it."""

    def __init__(self, now: Callable[[], float] = time.monotonic, pause: float = 60) -> None:
        self._now, self._pause = now, pause
        self._last: dict[str, tuple[float, int]] = {}

    def error(self, event: str, **more: object) -> None:
        """Log it, unless there was such a line less than a minute ago."""
        last, left_out = self._last.get(event, (float("-inf"), 0))
        if self._now() - last < self._pause:
            self._last[event] = last, left_out + 1
            return
        self._last[event] = self._now(), 0
        log.error(event, **more, **({"left_out": left_out} if left_out else {}))


class Connection(H11Protocol):
    """A connection of uvicorn's, with an end to whatever a client leaves half done."""

    allowed = Allowed()

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.since = self.loop.time()  # it has been in its state
        self._state = FRESH
        self._requests = 0
        self._stuck_since: float | None = None
        self._refused = False

    # What asyncio calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; refuse it where there are too many and none has to give way."""
        super().connection_made(transport)
        if len(self.connections) > self.allowed.most and not self._make_room():
            self._refuse(
                Problem("1400-503", "Service unavailable", "Too many connections: try again later.")
            )

    def data_received(self, data: bytes) -> None:
        """Read on, a slice of a head at a time: h11 only bounds one that is not whole yet."""
        start = 0
        while start < len(data) and not self._refused and not self.transport.is_closing():
            is_head = self.conn.their_state is h11.IDLE
            end = start + SLICE if is_head else len(data)
            super().data_received(data[start:end])
            start = end
        self.look()

    def pause_writing(self) -> None:
        """Note that the client does not read what is sent."""
        super().pause_writing()
        self._stuck_since = self.loop.time()

    def resume_writing(self) -> None:
        """Go on sending."""
        super().resume_writing()
        self._stuck_since = None

    # What uvicorn calls ---------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._requests += 1
        super().on_response_complete()
        self.look()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, in the form of every problem."""
        head = bytes(self.conn.trailing_data[0])
        if len(head) > LONGEST_TARGET and b"\n" not in head[:LONGEST_TARGET]:
            self._refuse(target_too_long())
        elif len(head) > HEAD:
            detail = f"The head of the request has more than {HEAD:,} bytes."
            self._refuse(Problem("1400-431", "Request header fields too large", detail))
        else:
            detail = "This is no HTTP request that can be read: is its Host header missing?"
            self._refuse(invalid("1400-400", detail))

    # What the sweep calls -------------------------------------------------------------------

    def look(self) -> int:
        """Find out what the connection does, and since when."""
        state = self._found()
        if state != self._state:
            self._state, self.since = state, self.loop.time()
        return state

    def sweep(self) -> None:
        """End what has taken too long."""
        now, state = self.loop.time(), self.look()
        stuck = self._stuck_since is not None and now - self._stuck_since > self.allowed.stuck
        if stuck or (state == ENDING and overdue(state, now - self.since, self.allowed)):
            self.transport.abort()
        elif overdue(state, now - self.since, self.allowed):
            self.end()

    def end(self) -> None:
        """End it: in words where half a request came, and nothing of an answer went."""
        is_unanswered = self._state == SENDING and not self.cycle.response_started
        if self._state in (FRESH, HEADING) or is_unanswered:
            self._refuse(Problem("1400-408", "Request timeout", "The request did not come whole."))
        else:
            self.transport.close()
        self.look()

    def _found(self) -> int:
        if self._refused or self.transport.is_closing():
            return ENDING
        if self.conn.their_state is h11.SEND_BODY:
            return SENDING
        if self.cycle is not None and not self.cycle.response_complete:
            return BUSY
        if not self._requests:
            return FRESH
        return HEADING if self.conn.trailing_data[0] else IDLE

    def _make_room(self) -> bool:
        """End the connection that is no use for the longest time, if it is not too young: one
        without a request before one between two of them.
        """
        now = self.loop.time()
        others = [each for each in self.connections if isinstance(each, Connection)]
        idle = [
            each
            for each in others
            if each is not self
            and each.look() in (FRESH, HEADING, IDLE)
            and now - each.since >= self.allowed.young
        ]
        if not idle:
            return False
        victim = min(idle, key=lambda each: (each._state == IDLE, each.since))
        victim.transport.abort()
        self.connections.discard(victim)
        return True

    def _refuse(self, problem: Problem) -> None:
        """Answer without the application, and end; what a client still sends is read for a while
        and dropped, since to close on it would take the answer away.
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
        self.look()


class Listener(uvicorn.Server):
    """Uvicorn's server, which looks at its connections once a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._seldom = Seldom()

    async def startup(self, sockets: Any = None) -> None:
        """Listen; what goes wrong in the loop, as an accept without a file left, is told seldom."""
        asyncio.get_running_loop().set_exception_handler(self._wrong)
        await super().startup(sockets=sockets)

    async def on_tick(self, counter: int) -> bool:
        """Once a second, end the connections that have taken too long."""
        if counter % 10 == 0:
            for each in list(self.server_state.connections):
                if isinstance(each, Connection):
                    each.sweep()
        return await super().on_tick(counter)

    def _wrong(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        kind = type(error).__name__ if error else ""
        why = (error.strerror or kind) if isinstance(error, OSError) else kind
        self._seldom.error("the control plane has trouble", what=context["message"], error=why)


def config_of(app: Any, allowed: Allowed, stop: int) -> uvicorn.Config:
    """How uvicorn serves an application here. Its own log would hold traces: nobody else logs."""
    protocol = type("Connection", (Connection,), {"allowed": allowed})
    return uvicorn.Config(
        app, loop="asyncio", http=protocol, ws="none", lifespan="off",
        log_config=None, log_level="critical", access_log=False, backlog=BACKLOG,
        proxy_headers=False, server_header=False, timeout_graceful_shutdown=stop,
        h11_max_incomplete_event_size=HEAD, timeout_keep_alive=int(allowed.idle) + 5,
        headers=[("Keep-Alive", f"timeout={KEEP_ALIVE}")],
    )  # fmt: skip
