"""`client.stream` over real sockets: the whole body, decompressed, or one of our errors."""

import base64
import gzip
import json
import random
import re
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import __version__
from engine.errors import (
    EtlError,
    InputError,
    RateLimited,
    Refused,
    TooLate,
    Truncated,
    Unavailable,
)
from engine.mixpanel.client import params, stream, translated, url
from engine.mixpanel.response_body import GATHERED, PIECE, gunzip
from engine.mixpanel.responses import clean, retry_after, verdict
from engine.mixpanel.timeouts import Timeouts
from engine.model.flow import Connection, Secret
from engine.model.window import Window

FIXTURES = Path(__file__).parents[1] / "fixtures"
USER, PASSWORD = "reader.1234.mp-service-account", 'pä"ss/wo&rd'
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
DAY = Window(date(2024, 1, 31), date(2024, 1, 31))
EVENT = b'{"event":"e","properties":{"time":1}}\n'
CALM = Timeouts(connect=5, first_byte=5, idle=5, total=10)
Reply = Callable[["Server", socket.socket], None]


def connection(host: str) -> Connection:
    return Connection(host, USER, Secret(PASSWORD), 2384945)


# -- a server whose every byte is written here -----------------------------------------------------


class Server:
    """A socket that gives each request the next reply: bytes, or what a function does with it."""

    def __init__(self, *replies: bytes | Reply) -> None:
        self.requests: list[str] = []
        self.left = threading.Event()  # the client went away while a reply held on
        self._replies = replies
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for reply in self._replies:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            with peer, suppress(ConnectionError):
                request = b""
                # A client that wants TLS begins with 0x16, and gets an answer that is none.
                while b"\r\n\r\n" not in request and not request.startswith(b"\x16"):
                    request += peer.recv(65536) or b"\r\n\r\n"
                self.requests.append(request.decode("latin-1"))
                if isinstance(reply, bytes):
                    peer.sendall(reply)
                else:
                    reply(self, peer)

    def stop(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


@contextmanager
def serving(*replies: bytes | Reply) -> Iterator[Server]:
    server = Server(*replies)
    try:
        yield server
    finally:
        server.stop()


def hold(before: bytes) -> Reply:
    """Send `before`, then nothing until the client closes the connection."""

    def reply(server: Server, peer: socket.socket) -> None:
        peer.sendall(before)
        with suppress(ConnectionError):
            peer.recv(1)
        server.left.set()

    return reply


def trickle(before: bytes, piece: bytes) -> Reply:
    """Send `before`, then `piece` for ever."""

    def reply(server: Server, peer: socket.socket) -> None:
        peer.sendall(before)
        with suppress(OSError):
            while not server.left.wait(0.01):
                peer.sendall(piece)

    return reply


def broken(before: bytes) -> Reply:
    """Send `before`, and reset the connection once the client has read it."""

    def reply(server: Server, peer: socket.socket) -> None:
        peer.sendall(before)
        server.left.wait(5)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return reply


def head(status: str, *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()


def sized(body: bytes, *headers: str, status: str = "200 OK", short: int = 0) -> bytes:
    return head(status, f"Content-Length: {len(body) + short}", *headers) + body


def chunked(*parts: bytes, last: bytes = b"0\r\n\r\n", encoding: str = "identity") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    headers = "Transfer-Encoding: chunked", f"Content-Encoding: {encoding}"
    return head("200 OK", *headers) + body + last


def gzipped(body: bytes) -> bytes:
    """Compress without a timestamp, so that names of tests stay the same."""
    return gzip.compress(body, mtime=0)


def zipped(body: bytes) -> bytes:
    return sized(body, "Content-Encoding: gzip")


def fetch(*replies: bytes | Reply, timeouts: Timeouts = CALM) -> bytes:
    with (
        serving(*replies) as server,
        stream(connection(server.url), DAY, timeouts=timeouts) as answer,
    ):
        return b"".join(answer)


# -- the request -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "events", "where", "more"),
    [
        (DAY, (), None, {}),
        (DAY, ("Sold", 'Ä"x'), None, {"event": '["Sold", "Ä\\"x"]'}),
        (DAY, (), 'properties["a"] == 1', {"where": 'properties["a"] == 1'}),
        (
            Window(DAY.from_date, DAY.to_date, (5, 9)),
            (),
            None,
            {
                "where": 'number(properties["mp_processing_time_ms"]) >= 5'
                ' and number(properties["mp_processing_time_ms"]) < 9'
            },
        ),
        (
            Window(DAY.from_date, DAY.to_date, (5, 9)),
            (),
            "a or b",
            {
                "where": '(number(properties["mp_processing_time_ms"]) >= 5'
                ' and number(properties["mp_processing_time_ms"]) < 9) and (a or b)'
            },
        ),
    ],
)
def test_the_query(
    window: Window, events: tuple[str, ...], where: str | None, more: dict[str, str]
) -> None:
    """Both days inclusive, the project, a JSON array of events, one `where` for both conditions."""
    whole = {"from_date": "2024-01-31", "to_date": "2024-01-31", "project_id": "2384945"} | more
    project = connection("https://data.mixpanel.com")
    assert params(project, window, events, where) == whole
    printed = urlsplit(url(project, window, events, where))
    assert parse_qs(printed.query) == {name: [value] for name, value in whole.items()}
    assert printed._replace(query="").geturl() == "https://data.mixpanel.com/api/2.0/export"


@pytest.mark.parametrize("limit", [0, -1, 100_001])
def test_a_limit_that_mixpanel_refuses_is_refused_here(limit: int) -> None:
    """A `limit` beyond 100,000 is an InputError before any request."""
    with pytest.raises(InputError, match="100,000"):
        params(connection("https://data.mixpanel.com"), DAY, limit=limit)


def test_what_goes_over_the_wire() -> None:
    """The request has Basic credentials, gzip, our user agent and the query that `url` prints."""
    with serving(sized(EVENT)) as server:
        project = connection(server.url)
        with stream(project, DAY, events=["a b"], where="x", limit=7, timeouts=CALM) as answer:
            assert b"".join(answer) == EVENT
        (request,) = server.requests
    line, *headers = request.split("\r\n")
    asked = url(project, DAY, ["a b"], "x", 7).removeprefix(server.url)
    assert line == f"GET {asked} HTTP/1.1"
    given_headers = dict(header.lower().split(": ", 1) for header in headers if header)
    assert given_headers["authorization"] == f"basic {BASIC}".lower()
    assert given_headers["accept-encoding"] == "gzip"
    assert given_headers["user-agent"] == f"mixpanel-etl/{__version__}"


@pytest.mark.parametrize(
    "host",
    [
        "http://data.mixpanel.com",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "data.mixpanel.com",
        "ftp://data.mixpanel.com",
        f"https://{USER}:secret@data.mixpanel.com",
        "https://data.mixpanel.com?x=1",
        "https://",
        "https://a b",
        "https://127.0.0.1:99999",
        f"https://{'x' * 64}.com",
        "",
    ],
)
def test_a_host_that_is_no_safe_address_is_refused_unasked(host: str) -> None:
    """P7: credentials are never sent in clear, and never part of the printed address."""
    with pytest.raises(InputError, match="https://") as caught:
        url(connection(host), DAY)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["http://localhost:80", "http://127.8.8.8", "http://[::1]:99"])
def test_a_loopback_host_may_be_plain(host: str) -> None:
    """http is allowed for a loopback address."""
    assert url(connection(host + "/"), DAY).startswith(
        host.removesuffix(":80") + "/api/2.0/export?"
    )


def test_credentials_in_clear_go_through_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: a request over http to this machine uses no proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert fetch(sized(EVENT)) == EVENT


@pytest.mark.parametrize("value", ["gopher://me:hunter2@proxy", "me:hunter2@x:y"])
def test_a_bad_proxy_setting_is_an_input_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The error names the variable and not its value, which may hold a password (P7)."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    with (
        pytest.raises(InputError, match="HTTPS_PROXY") as caught,
        stream(connection("https://data.invalid"), DAY),
    ):
        pass
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


# -- a whole body ----------------------------------------------------------------------------------

BODY = EVENT * 30_000


@pytest.mark.parametrize(
    "reply",
    [
        sized(BODY),
        chunked(BODY[:7], BODY[7:40_000], BODY[40_000:]),
        zipped(gzipped(BODY)),
        sized(gzipped(BODY), "Content-Encoding: X-GZIP"),
        zipped(gzipped(BODY[:1000]) + gzipped(b"") + gzipped(BODY[1000:])),
        chunked(*(gzipped(BODY)[at : at + 9] for at in range(0, 4000, 9)), encoding="gzip"),
        head("200 OK", "Content-Encoding: gzip") + gzipped(BODY),
    ],
    ids=["sized", "chunked", "gzip", "x-gzip", "members", "tiny chunks", "gzip until it closes"],
)
def test_a_whole_body_comes_decompressed(reply: bytes) -> None:
    """For every framing and compression, the body is what was sent."""
    assert fetch(reply) == BODY


@pytest.mark.parametrize("reply", [sized(b""), chunked(), zipped(gzipped(b""))])
def test_an_empty_body_is_whole(reply: bytes) -> None:
    """An empty body is a window without events, and no error."""
    assert fetch(reply) == b""


@settings(deadline=None, max_examples=25)
@given(st.lists(st.binary(max_size=300), max_size=3), st.lists(st.integers(1, 60), min_size=1))
def test_any_cut_of_gzip_into_chunks_is_the_same(members: list[bytes], sizes: list[int]) -> None:
    """Gzip members in chunks of any size give the bytes that were compressed."""
    whole = b"".join(map(gzipped, [b"{", *members]))
    parts: list[bytes] = []
    at = 0
    while at < len(whole):
        size = sizes[len(parts) % len(sizes)]
        parts.append(whole[at : at + size])
        at += size
    assert fetch(chunked(*parts, encoding="gzip")) == b"{" + b"".join(members)


def test_a_large_body_is_handed_on_while_it_comes() -> None:
    """P6: a body is passed on in pieces, and never gathered as a whole."""
    packed = gzipped(random.Random(1).randbytes(4 << 20))
    came = 0

    def chunks() -> Iterator[bytes]:
        nonlocal came
        for at in range(0, len(packed), 10_000):
            came += 10_000
            yield packed[at : at + 10_000]

    assert next(gunzip(chunks()))
    assert came < 2 * GATHERED


def test_a_bomb_comes_in_pieces_and_is_counted() -> None:
    """P6: 64 KiB that become 64 MiB come in pieces; `received` counts the compressed bytes."""
    bomb = gzipped(bytes(64 << 20))
    with (
        serving(zipped(bomb)) as server,
        stream(connection(server.url), DAY, timeouts=CALM) as answer,
    ):
        sizes = [len(piece) for piece in answer]
        assert answer.received == len(bomb)
    assert sum(sizes) == 64 << 20
    assert max(sizes) < 2 * PIECE


def test_small_chunks_are_gathered() -> None:
    """One line a chunk does not cause one step a line."""
    with (
        serving(chunked(*[EVENT] * 20_000)) as server,
        stream(connection(server.url), DAY, timeouts=CALM) as answer,
    ):
        pieces = list(answer)
    assert b"".join(pieces) == EVENT * 20_000
    assert len(pieces) <= len(EVENT) * 20_000 // PIECE + 1


# -- a body that is not whole (P1) -----------------------------------------------------------------

ZIP = gzipped(BODY)


@pytest.mark.parametrize(
    "reply",
    [
        sized(EVENT, short=1),
        chunked(EVENT, last=b""),
        chunked(EVENT, last=b"5\r\nab"),
        chunked(EVENT, last=b"zz\r\n\r\n"),
        chunked(EVENT, last=b"0\r\n"),
        head("200 OK") + EVENT,
        sized(ZIP, "Content-Encoding: gzip", short=1),
        zipped(ZIP[:-1]),
        zipped(ZIP[:-9]),
        zipped(ZIP[: len(ZIP) // 2]),
        zipped(ZIP[:5]),
        zipped(b""),
        zipped(EVENT),
        zipped(ZIP + b"terminated early"),
        zipped(ZIP + b"\0"),
        zipped(ZIP + ZIP[:-1]),
        zipped(ZIP[:-8] + bytes([ZIP[-8] ^ 1]) + ZIP[-7:]),
        zipped(ZIP[:-1] + bytes([ZIP[-1] ^ 1])),
        zipped(ZIP[:90] + bytes([ZIP[90] ^ 255]) + ZIP[91:]),
    ],
)
def test_a_body_that_is_not_whole_is_truncated(reply: bytes) -> None:
    """P1: HTTP framing and gzip must both end cleanly, with the right checksum."""
    with pytest.raises(Truncated) as caught:
        fetch(reply)
    assert PASSWORD not in str(caught.value)


def test_a_reset_in_the_body_is_a_broken_connection() -> None:
    """A reset in the middle of a body is Unavailable."""
    with serving(broken(sized(BODY, short=9))) as server:

        def read() -> None:
            with stream(connection(server.url), DAY, timeouts=CALM) as answer:
                for _ in answer:
                    server.left.set()

        with pytest.raises(Unavailable, match="broke"):
            read()


# -- an answer that is none ------------------------------------------------------------------------

PAGE = (
    b"<!DOCTYPE html><html><head><title>502 Bad &amp; Gateway</title></head><body>x</body></html>"
)
AUTH = json.loads((FIXTURES / "nango_recorded_400_auth.json").read_text())["body"].encode()
TOO_MANY = b'{"request":"/x","error":"Query rate limit exceeded for project_id: 1."}'


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, AUTH, Refused, "Unable to authenticate.*secret of the serv.*region"),
        (400, b"to_date cannot be later than today", TooLate, "project's time zone"),
        (400, b'{"request": "/x", "error": "Timeout Error."}', Unavailable, "Timeout Error"),
        (
            400,
            b'{"error": "unknown function foo in where"}',
            Refused,
            "unknown function foo.*where",
        ),
        (400, b"User is not a member of this project", Refused, "the number of the project"),
        (400, b"", Refused, "400"),
        (401, b"no", Refused, "secret of the service account"),
        (402, b'{"error": "Payment required"}', Refused, "Payment required.*plan"),
        (403, b"Permission denied", Refused, "Permission denied.*project"),
        (404, b"<h1>Not\nFound</h1>", Refused, "Not.*Check the host"),
        (408, b"", Unavailable, "408"),
        (410, b"gone", Refused, "gone"),
        (429, TOO_MANY, RateLimited, "Query rate limit exceeded"),
        (500, b"\n\n  error completing export request\nmore", Unavailable, "export request$"),
        (502, PAGE, Unavailable, "502 Bad & Gateway$"),
        (503, b'{"error": {"code": 3, "message": "deep"}}', Unavailable, "503: deep$"),
        (504, b'{"a": [1]}', Unavailable, "a.*1"),
        (204, b"", Refused, "204"),
        (304, b"", Refused, "Check the host"),
        (407, b"me:hunter2", Refused, "refuses the name and password.*check HTTPS_PROXY"),
        (302, b"", Refused, "302"),
    ],
)
def test_every_status_becomes_an_error_of_ours(
    status: int, body: bytes, kind: type[EtlError], words: str
) -> None:
    """The class of the error says what to do, its message repeats Mixpanel's."""
    if status in (204, 304):
        body, reply = b"", head(f"{status} x")
    else:
        reply = sized(body, status=f"{status} x")
    with pytest.raises(EtlError, match=f"(?s){words}") as caught:
        fetch(reply)
    assert type(caught.value) is kind
    assert str(status) in str(caught.value)


def test_a_compressed_error_is_readable() -> None:
    """The message of a compressed error body is shown."""
    body = gzipped(b'{"error":"bad where"}')
    with pytest.raises(Refused, match="bad where"):
        fetch(sized(body, "Content-Encoding: gzip", status="400 x"))


@pytest.mark.parametrize(
    "reply",
    [
        sized(b"bad wh", status="400 x", short=5),
        zipped(gzipped(b"bad wh")[:-2]).replace(b"200 OK", b"400 x"),
        head("400 x") + b"bad wh",
    ],
)
def test_an_error_that_breaks_off_is_still_that_error(reply: bytes) -> None:
    """The status decides the error although its body breaks off."""
    with pytest.raises(Refused, match="400: bad wh"):
        fetch(reply)


def test_an_error_that_nobody_can_read_is_not_shown() -> None:
    """The body of an error in an unknown encoding is not shown."""
    with pytest.raises(Unavailable) as caught:
        fetch(sized(b"\x8f\x05\x80\x1b[31m", "Content-Encoding: br", status="500 x"))
    assert str(caught.value).isprintable()
    assert "[31m" not in str(caught.value)


def test_no_more_of_an_error_is_read_than_matters() -> None:
    """P6, P8: only the start of an error's body is read."""
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="500: x"):
        fetch(hold(sized(b"x" * 200_000, status="500 x", short=1)), timeouts=Timeouts(idle=20))
    assert time.monotonic() - begun < 10


def test_only_the_beginning_can_be_a_page() -> None:
    """A later piece that begins with `<` is no HTML page."""
    body = b"x" + b"<" * 4 * PIECE
    assert fetch(sized(body)) == body


@pytest.mark.parametrize(
    "reply",
    [
        sized(PAGE),
        sized(b"  \n" + PAGE),
        zipped(gzipped(PAGE)),
        sized(b"502 Bad & Gateway", "Content-Type: text/html; charset=utf-8"),
    ],
)
def test_a_page_instead_of_events_is_unavailable(reply: bytes) -> None:
    """An HTML page with status 200 is Unavailable, and no events."""
    with pytest.raises(Unavailable, match=r"HTML page.*502 Bad & Gateway"):
        fetch(reply)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip"])
def test_an_encoding_that_nobody_asked_for_is_unavailable(encoding: str) -> None:
    """A body in an encoding that was not requested is Unavailable."""
    with pytest.raises(Unavailable, match=encoding):
        fetch(sized(EVENT, f"Content-Encoding: {encoding}"))


NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 -0000"}, 60.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0.0),
        (
            {
                "retry-after": "Wed, 15 Nov 2023 00:00:30 GMT",
                "date": "Wed, 15 Nov 2023 00:00:00 GMT",
            },
            30.0,
        ),
        ({"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT", "date": "yesterday"}, 60.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9" * 400}, None),
    ],
)
def test_retry_after_has_two_forms(headers: dict[str, str], seconds: float | None) -> None:
    """A number of seconds, or a date, which counts from the date of the answer."""
    assert retry_after(headers, NOW) == seconds
    for status in (429, 503):
        error = verdict(status, headers, b"", connection("https://x"), NOW)
        assert isinstance(error, RateLimited | Unavailable)
        assert error.retry_after == seconds


# -- no answer -------------------------------------------------------------------------------------


def test_nobody_listens() -> None:
    """A refused connection is Unavailable, and the error names the host."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port} cannot be reached.*refused"),
        stream(connection(f"http://127.0.0.1:{port}"), DAY, timeouts=CALM),
    ):
        pass


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"hello\r\n\r\n"])
def test_no_http_answer_is_unavailable(reply: bytes) -> None:
    """A connection that closes, or that speaks no HTTP, is Unavailable."""
    with pytest.raises(Unavailable):
        fetch(reply)


def test_a_host_without_tls_is_unavailable() -> None:
    """https to a port without TLS is Unavailable, and sends no credentials."""
    with serving(b"HTTP/1.1 400 what\r\n\r\n") as server:
        with (
            pytest.raises(Unavailable),
            stream(connection(server.url.replace("http:", "https:")), DAY, timeouts=CALM),
        ):
            pass
        server.stop()
        assert BASIC not in "".join(server.requests)


def test_a_certificate_that_cannot_be_verified_is_refused() -> None:
    """A certificate that cannot be verified is Refused, so that no retry follows."""
    error = httpx.ConnectError("handshake")
    error.__cause__ = ssl.SSLCertVerificationError(1, "[SSL] self-signed certificate")
    error.__cause__.verify_message = "self-signed certificate"
    said = translated(error, connection("https://data.mixpanel.com"))
    assert type(said) is Refused
    assert "self-signed" in str(said)


@pytest.mark.parametrize(
    ("error", "in_body", "kind"),
    [
        (httpx.ConnectTimeout(""), False, Unavailable),
        (httpx.ReadTimeout(""), True, Unavailable),
        (httpx.ProxyError("407 x"), False, Refused),
        (httpx.ProxyError("403 x"), False, Refused),
        (httpx.ProxyError("502 x"), False, Unavailable),
        (httpx.ProxyError("Invalid username/password"), False, Refused),
        (httpx.RemoteProtocolError("x"), False, Unavailable),
        (httpx.RemoteProtocolError("x"), True, Truncated),
        (httpx.ReadError(""), True, Unavailable),
        (httpx.WriteError(""), False, Unavailable),
    ],
)
def test_every_exception_of_httpx_becomes_ours(
    error: Exception, in_body: bool, kind: type[EtlError]
) -> None:
    """No exception of httpx leaves this module."""
    assert type(translated(error, connection("https://x"), in_body=in_body)) is kind


@pytest.mark.parametrize(
    ("reply", "timeouts", "words"),
    [
        (hold(b""), Timeouts(first_byte=0.2), r"sent nothing for 0\.2 seconds"),
        (hold(sized(b"", short=9)), Timeouts(first_byte=0.2), r"sent nothing for 0\.2 seconds"),
        (hold(sized(EVENT, short=9)), Timeouts(idle=0.2), r"sent nothing for 0\.2 seconds"),
        (
            trickle(head("200 OK", "Transfer-Encoding: chunked"), b"1\r\n{\r\n"),
            Timeouts(total=0.3),
            r"did not finish its answer within 0\.3 seconds",
        ),
        (
            trickle(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
            Timeouts(total=0.3),
            r"did not finish its answer within 0\.3 seconds",
        ),
    ],
    ids=["no answer", "no byte", "silence", "endless body", "endless headers"],
)
def test_no_wait_is_endless(reply: Reply, timeouts: Timeouts, words: str) -> None:
    """First byte, next byte and the whole request have a time-out each."""
    with pytest.raises(Unavailable, match=words):
        fetch(reply, timeouts=timeouts)


def test_slow_and_steady_is_no_silence() -> None:
    """A body in small pieces may take longer than the time-out between two bytes."""

    def reply(server: Server, peer: socket.socket) -> None:
        peer.sendall(head("200 OK", "Content-Length: 60"))
        for _ in range(60):
            server.left.wait(0.01)
            peer.sendall(b"x")

    assert fetch(reply, timeouts=Timeouts(first_byte=0.4, idle=0.4)) == b"x" * 60


def test_a_slow_reader_is_no_silent_server() -> None:
    """The time that the reader takes between two pieces does not count as silence."""
    timeouts = Timeouts(first_byte=0.1, idle=0.1)
    with (
        serving(sized(BODY)) as server,
        stream(connection(server.url), DAY, timeouts=timeouts) as answer,
    ):
        pieces = iter(answer)
        got = [next(pieces)]
        server.left.wait(0.3)  # nobody sets it
        assert b"".join([*got, *pieces]) == BODY


@pytest.mark.parametrize(
    "before", [b"", sized(EVENT, short=9), head("200 OK", "Content-Encoding: gzip") + ZIP[:99]]
)
def test_a_wait_can_be_stopped(before: bytes) -> None:
    """P8: each wait for the network ends soon after `stopped` returns true."""
    with serving(hold(before)) as server:
        with (
            pytest.raises(Unavailable, match="stopped"),
            stream(
                connection(server.url), DAY, timeouts=CALM, stopped=lambda: bool(server.requests)
            ) as answer,
        ):
            b"".join(answer)
        assert server.left.wait(5)


def interrupt(_: bytes) -> None:
    raise KeyboardInterrupt


def test_leaving_closes_the_connection() -> None:
    """P8: leaving the `with` block does not wait for the rest of the body."""
    with serving(hold(sized(BODY, short=1))) as server:
        with (
            pytest.raises(KeyboardInterrupt),
            stream(connection(server.url), DAY, timeouts=CALM) as answer,
        ):
            interrupt(next(iter(answer)))
        assert server.left.wait(5)
    assert not [thread for thread in threading.enumerate() if thread.name == "export-watch"]


# -- redirects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_host_is_followed(status: int) -> None:
    """A redirect within the host is followed, with the credentials."""
    reply = sized(b"", "Location: /elsewhere?a=b", status=f"{status} x")
    with serving(reply, sized(EVENT)) as server:
        with stream(connection(server.url), DAY, timeouts=CALM) as answer:
            assert b"".join(answer) == EVENT
        assert server.requests[1].startswith("GET /elsewhere?a=b HTTP/1.1")
        assert BASIC in server.requests[1]


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{other}/x",
        "//127.0.0.1:{other}/x",
        "http://localhost:{port}/x",
        "https://127.0.0.1:{port}/x",
        "http://[/",
    ],
)
def test_a_redirect_elsewhere_is_refused(target: str) -> None:
    """P7: a redirect to another scheme, host or port is refused."""

    def reply(server: Server, peer: socket.socket) -> None:
        location = target.format(port=port(server), other=port(elsewhere))
        peer.sendall(sized(b"", f"Location: {location}", status="302 x"))

    with serving(sized(EVENT)) as elsewhere, serving(reply, sized(EVENT)) as server:
        with pytest.raises(Refused) as caught, stream(connection(server.url), DAY, timeouts=CALM):
            pass
        assert elsewhere.requests == []
        assert len(server.requests) == 1
    assert BASIC not in str(caught.value)
    assert re.search(
        r"redirects to .*would receive the credentials|cannot be read", str(caught.value)
    )


def port(server: Server) -> str:
    return server.url.rsplit(":", 1)[1]


def test_redirects_in_a_circle_are_refused() -> None:
    """Endless redirects are refused after a few."""
    with pytest.raises(Refused, match="redirected"):
        fetch(*[sized(b"", "Location: /again", status="302 x")] * 9)


# -- secrets (P7) ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "echo",
    [
        PASSWORD,
        USER,
        BASIC,
        f"Basic {BASIC} for {USER} with {PASSWORD}",
        "p%C3%A4%22ss%2Fwo%26rd",
        "p%C3%A4%22ss/wo%26rd",
        'p\\u00e4\\"ss/wo&rd',
        "p\u00e4&quot;ss/wo&amp;rd",
    ],
)
@pytest.mark.parametrize("wrap", ["{}", '{{"x": "{}"}}', "<title>{}</title>"])
def test_no_message_repeats_the_credentials(echo: str, wrap: str) -> None:
    """P7: credentials that a server repeats in any form are masked."""
    body = wrap.format(echo).encode()
    for reply in (sized(body, status="400 x"), sized(body, "Content-Type: text/html")):
        with pytest.raises(EtlError) as caught:
            fetch(reply)
        whole = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        for secret in (PASSWORD, BASIC, USER, "wo&rd", "wo&amp;rd", "ss%2Fwo", "wo%26rd"):
            assert secret not in whole


def test_one_secret_in_another_hides_neither() -> None:
    """P7: a password that contains the user name is masked as a whole."""
    twins = Connection("https://x", "reader", Secret("reader-1234"), 1)
    assert clean("by reader with reader-1234.", twins) == "by *** with ***."


def test_a_message_is_short_and_printable() -> None:
    """A binary body neither floods the terminal nor sends it control characters."""
    said = clean("\x1b[31m\x00" + "é" * 1000, connection("https://x"))
    assert said.isprintable()
    assert len(said) == 200


def test_nothing_shows_the_password() -> None:
    """P7: neither a printed connection nor a printed response shows the password."""
    with (
        serving(sized(EVENT)) as server,
        stream(connection(server.url), DAY, timeouts=CALM) as answer,
    ):
        shown: list[Any] = [connection(server.url), answer, vars(answer)]
        assert b"".join(answer) == EVENT
    assert PASSWORD not in repr(shown)
    assert BASIC not in repr(shown)
