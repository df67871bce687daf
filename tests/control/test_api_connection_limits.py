"""Limits of connections without a token: their number, time and bytes."""

import asyncio
import json
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from engine.control.api.connection_limits import (
    BUSY,
    CLOSING,
    HEAD,
    IDLE,
    KEEP_ALIVE,
    NEW,
    READING_BODY,
    READING_HEAD,
    Connection,
    ConnectionLimits,
    Listener,
    ThrottledLog,
    config_of,
    limits_for,
    overdue,
    raise_file_limit,
)
from engine.control.api.request_target import LONGEST_TARGET

BRIEF = ConnectionLimits(most=4, head=0.2, body=0.2, idle=0.2, stuck=0.2, linger=0.2, young=0)
HALF = b"GET /x HTTP/1.1\r\nHost: loc"
WHOLE = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
EXPECTING = POST[:-2] + b"Expect: 100-continue\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads a body, and answers with its length; at /large with 16 MiB."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"x" * (16 << 20) if scope["path"] == "/large" else str(size).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class Eager(Listener):
    """A listener that sweeps its connections ten times as often as the real one."""

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(0)


@contextmanager
def listening(limits: ConnectionLimits) -> Iterator[tuple[str, int]]:
    server = Eager(config_of(app, limits, 1))
    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=server.run, args=[[door]])
        thread.start()
        try:
            yield door.getsockname()
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def brief() -> Iterator[tuple[str, int]]:
    """The address of a server with BRIEF limits, for tests that use one connection each."""
    with listening(BRIEF) as address:
        yield address


@contextmanager
def calling(address: tuple[str, int], *sent: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=10) as caller:
        for each in sent:
            caller.sendall(each)
        yield caller


def heard(caller: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    found = bytearray()
    with suppress(ConnectionResetError):
        while piece := caller.recv(1 << 16):
            found += piece
    return bytes(found)


def status(answer: bytes) -> int:
    """Of an answer in the form of every problem."""
    head, _, body = answer.partition(b"\r\n\r\n")
    found = int(head.split()[1])
    assert json.loads(body)["status"] == found
    assert b"\r\nConnection: close" in head
    return found


@pytest.mark.parametrize("sent", [b"", b"G", HALF, WHOLE + HALF])
def test_half_a_head_ends_in_time(brief: tuple[str, int], sent: bytes) -> None:
    """A connection with half a head is ended in time, also a second or slowly growing head."""
    with calling(brief, sent) as caller:
        answer = heard(caller)
    assert status(answer[answer.rindex(b"HTTP/1.1 ") :]) == 408


def test_half_a_body_ends_in_time(brief: tuple[str, int]) -> None:
    """A connection with half a body is ended in time, with a length or in chunks."""
    chunked = b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    for sent in (POST + b"abc", chunked):
        with calling(brief, sent) as caller:
            assert status(heard(caller)) == 408


def test_an_idle_connection_outlives_keep_alive(brief: tuple[str, int]) -> None:
    """An idle connection lives longer than `Keep-Alive` promises, and is then closed."""
    assert ConnectionLimits().idle > KEEP_ALIVE >= 60
    with calling(brief, WHOLE) as caller:
        answer = heard(caller)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"keep-alive: timeout={KEEP_ALIVE}\r\n".encode() in answer.lower()
    assert answer.endswith(b"\r\n\r\n0")


def test_an_unread_response_ends_its_connection() -> None:
    """A client that stops reading a response loses its connection; a slow reader does not."""
    asked = WHOLE.replace(b"/x", b"/large")
    with listening(BRIEF) as address, calling(address, asked) as slow:
        slow.recv(1)
        for _ in range(3):  # each waits as long as what is sent may be stuck
            with calling(address) as other:
                assert status(heard(other)) == 408
        assert len(heard(slow)) < 16 << 20


def test_a_connection_too_many_is_refused_at_once() -> None:
    """A connection over the maximum is refused with a response while all others are young."""
    with listening(replace(BRIEF, head=30, young=30)) as address:
        held = [socket.create_connection(address, timeout=10) for _ in range(BRIEF.most)]
        for each in held:
            each.sendall(HALF)
        with calling(address) as one_more:
            assert status(heard(one_more)) == 503
        held[0].sendall(WHOLE[len(HALF) :])
        assert held[0].recv(100).startswith(b"HTTP/1.1 200")
        for each in held:
            each.close()


def test_a_waiting_connection_gives_way_to_a_new_one() -> None:
    """A new connection replaces the one that waits longest, first one without a request."""
    patient = replace(BRIEF, head=30, idle=30, body=30)
    with (
        listening(patient) as address,
        calling(address, WHOLE) as served,
        calling(address, EXPECTING) as sending,
        calling(address, HALF) as half,
        calling(address),
    ):
        assert served.recv(1000)
        assert sending.recv(1000).startswith(b"HTTP/1.1 100")  # its head has been read
        for _ in range(20):
            with calling(address, WHOLE) as client:
                assert client.recv(1000).startswith(b"HTTP/1.1 200")
        assert heard(half) == b""
        sending.sendall(b"0123456789")
        assert heard_until(sending, b"10")


def heard_until(caller: socket.socket, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end):
        piece = caller.recv(1000)
        assert piece
        found += piece
    return found


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET /x?" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /x?" + b"a" * 1_000_000, 414),
        (b"GET /x HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100_000 + b"\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    ],
)
def test_a_head_is_bounded(brief: tuple[str, int], sent: bytes, expected: int) -> None:
    """The target, the lines and the bytes of a head are bounded, and malformed requests get a
    Problem.
    """
    assert HEAD > LONGEST_TARGET
    with calling(brief) as caller:
        with suppress(OSError):
            caller.sendall(sent)
        assert status(heard(caller)) == expected


def test_requests_one_after_the_other_in_one_write() -> None:
    """Pipelined ones are answered in their order."""
    patient, sent = replace(BRIEF, head=30, idle=30), WHOLE * 50 + POST + b"0123456789"
    with listening(patient) as address, calling(address, sent) as caller:
        answers = heard_until(caller, b"10")
    assert answers.count(b"HTTP/1.1 200") == 51


def test_an_upgrade_is_a_request_like_any_other(brief: tuple[str, int]) -> None:
    """There is no other protocol here."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    with calling(brief, WHOLE[:-2] + upgrade) as caller:
        assert heard(caller).startswith(b"HTTP/1.1 200")


# Without a socket -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "limit"),
    [(NEW, 10.0), (READING_HEAD, 10.0), (READING_BODY, 30.0), (IDLE, 80.0), (CLOSING, 5.0)],
)
def test_how_long_each_may_take(state: int, limit: float) -> None:
    """Waiting for our own answer is not bounded here."""
    assert not overdue(state, limit, ConnectionLimits())
    assert overdue(state, limit + 0.1, ConnectionLimits())
    assert not overdue(BUSY, 1e9, ConnectionLimits())


@pytest.mark.parametrize(
    ("files", "most"), [(1024, 256), (256, 64), (8, 8), (1 << 20, 256), (-1, 256)]
)
def test_most_files_are_for_the_daemons_own_work(files: int, most: int) -> None:
    """Connections may use a quarter of the open files; the rest are for the daemon's work."""
    assert limits_for(files).most == most


def test_the_limit_of_files_is_raised() -> None:
    """As far as the system lets a process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64 if soft > 64 else soft, hard))
    try:
        assert raise_file_limit() == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_line_of_a_kind_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand errors of a kind are two log lines; the second has the number left out."""
    moment = [0.0]
    throttled = ThrottledLog(lambda: moment[0])
    for n in range(1000):
        moment[0] = n * 0.1
        throttled.error("the control plane has trouble", error="Too many open files")
    throttled.error("another kind")
    said = [line for line in "".join(capsys.readouterr()).splitlines() if line]
    assert len(said) == 3
    assert "599" in said[1]


def test_trouble_of_the_loop_is_told_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    """An accept for which there is no file left is tried again and again: without a traceback."""
    listener = Listener(config_of(app, BRIEF, 1))
    loop = asyncio.new_event_loop()
    try:
        for _ in range(100):
            error = OSError(24, "Too many open files")
            context = {"message": "socket.accept() out of system resource", "exception": error}
            listener.on_loop_error(loop, context)
    finally:
        loop.close()
    said = "".join(capsys.readouterr())
    assert said.count("out of system resource") == 1
    assert "Too many open files" in said
    assert "Traceback" not in said


def test_every_protocol_has_its_own_bounds() -> None:
    """The limits of one server do not change those of another."""
    made = config_of(app, BRIEF, 1).http
    assert isinstance(made, type)
    assert issubclass(made, Connection)
    assert made.limits == BRIEF
    assert Connection.limits == ConnectionLimits()
