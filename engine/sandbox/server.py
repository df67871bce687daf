"""Serve the sandbox on a loopback address: `Sandbox` in a thread, `serve` in the foreground.

It knows nothing about events and faults.
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from engine.errors import InputError
from engine.sandbox.endpoint import Project, wall_clock
from engine.sandbox.events import Spec
from engine.sandbox.faults import Fault


class OpenProtocol(H11Protocol):
    """HTTP/1.1 that gives the application access to its connection, to break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Store the transport in `request.state.transport`."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class Server(uvicorn.Server):
    """A uvicorn server that stops at once and aborts responses under way."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Abort every connection, then stop as uvicorn does."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop without raising the signal again, so that the exit status is 0."""
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 picks a free one. InputError unless `host` is loopback."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InputError(f"The sandbox listens on loopback only, not on {host!r}. Use 127.0.0.1.")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Give another port."
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of the sandbox that listens on `listener`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_for(project: Project) -> Server:
    """A server of `project` that does not run yet."""
    return Server(
        uvicorn.Config(
            project.application(),
            http=OpenProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            date_header=False,  # the project has its own clock
            headers=[("X-Sandbox", "not Mixpanel")],
            timeout_graceful_shutdown=0,  # connections are aborted: their tasks end at once
        )
    )


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    project: Project | None = None,
    announce: Callable[[str], object] = lambda url: None,
) -> None:
    """Serve until SIGINT or SIGTERM; call `announce` with the URL as soon as it is open."""
    with listen(host, port) as listener:
        announce(url_of(listener))
        server_for(project or Project()).run(sockets=[listener])


class Sandbox:
    """A sandbox that a thread serves until the end of a `with` block.

    The arguments are those of `Project`, and `port`. No rate limit unless one is given.
    """

    def __init__(
        self,
        spec: Spec | None = None,
        *,
        now: Callable[[], int] = wall_clock,
        per_hour: int | None = None,
        per_second: int | None = None,
        cache_dir: Path | None = None,
        port: int = 0,
    ) -> None:
        self.project = Project(
            spec or Spec(), now, per_hour=per_hour, per_second=per_second, cache_dir=cache_dir
        )
        self._listener = listen("127.0.0.1", port)
        self.url = url_of(self._listener)
        self._server = server_for(self.project)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener],), name="sandbox", daemon=True
        )
        self._thread.start()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The export requests so far: `params`, `time` in ms, `status`, `fault`; no credentials."""
        return list(self.project.requests)

    def faults(self, *faults: Mapping[str, Any]) -> None:
        """Add faults, in the control endpoint's form: `{"fault": "cut", "times": 2, …}`."""
        self.project.faults.extend([Fault.parse(fault) for fault in faults])

    def reset(self) -> None:
        """Clear faults, requests, the rate limits' counts and a clock that was set."""
        self.project.faults.clear()
        self.project.requests = []  # requests under way write to the old list
        self.project.request_times.clear()
        self.project.clock_ms = None

    def stop(self) -> None:
        """Stop the server and abort responses under way."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
