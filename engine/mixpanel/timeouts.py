"""How long Mixpanel may take, and the thread that ends a request which takes longer."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from engine.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs in seconds. Mixpanel computes for minutes before it sends the first byte.

    connect     to open a connection, with TLS
    first_byte  to the head of the response, and from there to the first byte of the body
    idle        between two bytes of the body
    total       for the whole request
    """

    connect: float = 30
    first_byte: float = 20 * 60
    idle: float = 5 * 60
    total: float = 6 * 3600


DEFAULT_TIMEOUTS = Timeouts()


class Watchdog:
    """Ends a request that exceeds its time-outs or is stopped.

    httpx has one time-out for every read. Here the first byte may take longer than the next, the
    whole request has an end, and a wait can be stopped. So a thread checks the request about twice
    a second and shuts its socket down, which wakes the reader.
    """

    def __init__(self, host: str, timeouts: Timeouts, stopped: Callable[[], bool]) -> None:
        self.error: Unavailable | None = None  # why the request was ended
        self._host, self._timeouts, self._stopped = host, timeouts, stopped
        self._deadline = float("inf")
        self._socket: socket.socket | None = None
        self._started = time.monotonic()
        self._waiting_since: float | None = None
        self._body_started = False
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="export-watch", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        self._thread.join()

    @contextmanager
    def waiting(self, *, in_body: bool) -> Iterator[None]:
        """Limit the time that the `with` block waits for the network."""
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waiting_since = None
        if self.error:
            raise self.error
        self._body_started = self._body_started or in_body

    def end_within(self, seconds: float) -> None:
        """End the request in `seconds` at the latest."""
        self._deadline = time.monotonic() + seconds

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take the socket, bare or with TLS, from a trace event of httpcore."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self.error:
                self._shut_down()

    def close_socket(self) -> None:
        """Close the connection to a proxy that refused it, which httpcore leaves open."""
        if self._socket:
            self._socket.close()

    def _watch(self) -> None:
        timeouts = self._timeouts
        pause = min(0.5, timeouts.first_byte / 4, timeouts.idle / 4, timeouts.total / 4)
        while not self._finished.wait(pause):
            if reason := self._reason(time.monotonic()):
                self.error = Unavailable(reason)
                self._shut_down()
                return

    def _reason(self, now: float) -> str | None:
        """Return why the request must end at `now` (monotonic seconds); None: it may go on."""
        host, since, timeouts = self._host, self._waiting_since, self._timeouts
        limit = timeouts.idle if self._body_started else timeouts.first_byte
        if self._stopped():
            return f"The request to {host} was stopped."
        if now > self._deadline or now - self._started > timeouts.total:
            return f"{host} did not finish its answer within {timeouts.total:g} seconds."
        if since is not None and now - since > limit:
            return f"{host} sent nothing for {limit:g} seconds."
        return None

    def _shut_down(self) -> None:
        if self._socket:
            with suppress(OSError):  # it is closed already
                # Not SSLSocket's method: the reader would go on without decryption.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
