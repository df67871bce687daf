"""Errors made of responses without events: bounded work, and no event in a message (P7)."""

import gzip
import json
import random
import time
from collections.abc import Callable
from functools import partial

import pytest

from engine.errors import EtlError, Refused, Truncated
from engine.mixpanel.client import stream
from engine.mixpanel.response_body import gunzip
from engine.mixpanel.responses import HIDDEN, clean, is_page, quote, retry_after, sentence, verdict
from engine.mixpanel.timeouts import Timeouts
from engine.model.flow import Connection, Secret
from engine.transform.decode import read
from tests.mixpanel.test_client import CALM, DAY, chunked, connection, fetch, head, serving, sized

EVENT = {
    "event": "Items sold",
    "properties": {"time": 1704067200, "distinct_id": "u1@test.com", "$insert_id": "k1"},
}
LINE = json.dumps(EVENT).encode()
OURS = connection("https://data.mixpanel.com")
SECONDS = 2  # what a linear look at a few MiB takes many times over
MIB = 1 << 20


# -- bounded work ----------------------------------------------------------------------------------

HOSTILE = {
    "less-than signs": b"<" * (64 << 10),
    "links that never end": b"<a href=x " * (MIB // 10),
    "titles that never end": b"<title>" * 150_000,
    "closed titles": b"<title >" * 100_000 + b"</",
    "headings": b"<h1" * 300_000,
    "spaces": b" " * MIB,
    "spaces and a page": b" " * MIB + b"<" * MIB,
    "lines": b"\n" * MIB,
    "deep JSON": b"[" * 100_000,
    "deep objects": b'{"error":' * 100_000,
    "an error in an error": b'{"error":' * 500 + b"1" + b"}" * 500,
    "a deep list beside no error": b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    "a deep list as the error": b'{"error":' + b"[" * 900 + b"]" * 900 + b"}",
    "a deep list alone": b"[" * 500 + b"]" * 500,
    "a long number": b'{"error":' + b"1" * (60 << 10) + b"}",
    "ampersands": b"<title>" + b"&" * MIB,
    "entities": b"<title>" + b"&#9" * MIB,
    "no UTF-8": b"\xff" * MIB,
    "escapes": b'{"error":"' + b"\\u0000" * 10_000 + b'"}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("status", [200, 500])
def test_no_body_costs_more_than_a_look(body: bytes, status: int) -> None:
    """For any text, the search for a sentence ends within a moment."""
    begun = time.thread_time()
    is_page(body)
    said = sentence(body)
    shown = clean(said, OURS) + quote(said, OURS)
    verdict(status, {}, body, OURS, 0.0)
    assert time.thread_time() - begun < SECONDS
    assert len(shown) <= 400


@pytest.mark.parametrize("body", [b"<" * (64 << 10), b"<title>" * 150_000], ids=["<", "titles"])
@pytest.mark.parametrize("status", ["200 OK", "502 x"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_hostile_page_over_a_socket_is_an_error_at_once(
    body: bytes, status: str, packed: bool
) -> None:
    """P8: a hostile page is an error at once, and does not hold the interpreter's lock."""
    headers = ("Content-Encoding: gzip",) if packed else ()
    begun = time.thread_time()
    with pytest.raises(EtlError) as caught:
        fetch(sized(gzip.compress(body) if packed else body, *headers, status=status))
    assert time.thread_time() - begun < SECONDS
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "value",
    ["1" * 100_000, "1." + "0" * 100_000, " " * 100_000, "Tue, " * 20_000, "(" * 100_000,
     ":" * 100_000, "Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359"],
)  # fmt: skip
def test_no_header_costs_more_than_a_look(value: str) -> None:
    """`Retry-After` and `Date` of any length and content are parsed within a moment."""
    begun = time.thread_time()
    for headers in ({"retry-after": value}, {"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}):
        retry_after(headers | {"date": value}, 0.0)
    assert time.thread_time() - begun < SECONDS


@pytest.mark.parametrize(
    "header",
    ["Location: http://" + "x" * 60_000, "Location: " + "//" * 30_000, "Location: /" + "%" * 60_000,
     "Location: http://" + "é" * 20_000, "Location: http://[" + ":" * 60_000,
     "Set-Cookie: a=b; Expires=" + "1 " * 30_000, "Set-Cookie: " + "a" * 60_000,
     "Content-Type: " + "text/htm" * 8_000, "Content-Encoding: " + "gzip," * 12_000],
    ids=lambda header: header[:24],
)  # fmt: skip
@pytest.mark.parametrize("status", ["302 x", "200 OK", "500 x"])
def test_a_huge_header_is_an_error_or_nothing(header: str, status: str) -> None:
    """A header of 60 KB takes no longer than one of 60 bytes, and stays out of the message."""
    begun = time.thread_time()
    said = ""
    try:
        fetch(sized(b"", header, status=status))
    except EtlError as error:
        said = str(error)
    assert len(said) < 600
    assert time.thread_time() - begun < SECONDS


def test_a_long_password_costs_no_more() -> None:
    """A password of a megabyte does not delay the message of the server."""
    absurd = Connection("https://x", "reader", Secret("pä" * (MIB // 2)), 1)
    begun = time.thread_time()
    assert clean("no such account", absurd) == "no such account"
    assert time.thread_time() - begun < SECONDS


@pytest.mark.parametrize(
    ("user", "message", "shown"),
    [
        ("a", "a plan has no access, says a@b", "*** plan has no access, says ***@b"),
        ("aa", "aaa aa/aa baa", "aaa ***/*** baa"),
        ("me", 'no access for "me": some method', 'no access for "***": some method'),
        ("shop", "workshop", "work***"),
    ],
)
def test_a_short_user_name_leaves_words_whole(user: str, message: str, shown: str) -> None:
    """A name of up to three characters is masked only as a whole word."""
    assert clean(message, Connection("https://x", user, Secret("8iQbnjuk5"), 1)) == shown


@pytest.mark.parametrize("password", ["a", "ab", "me", "shop"])
def test_a_password_is_masked_within_words_however_short(password: str) -> None:
    """P7: a password is masked within words too, even if the user has the same name."""
    for user in ("reader", password):
        shown = clean(f"x{password}x", Connection("https://x", user, Secret(password), 1))
        assert shown == "x***x"


def test_the_body_of_an_error_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error's body that trickles does not delay the error."""
    from engine.mixpanel import client
    from tests.mixpanel.test_client import trickle

    monkeypatch.setattr(client, "ERROR_SECONDS", 0.3)
    begun = time.monotonic()
    with pytest.raises(EtlError, match="500"):
        fetch(trickle(sized(b"", status="500 x", short=999), b"x"), timeouts=Timeouts(total=20))
    assert time.monotonic() - begun < 5


def test_an_answer_in_single_bytes_costs_no_more() -> None:
    """A body in chunks of one byte takes no quadratic time."""
    packed = gzip.compress(random.Random(1).randbytes(200_000), 0)
    begun = time.thread_time()
    assert len(b"".join(gunzip(bytes([byte]) for byte in packed))) == 200_000
    assert time.thread_time() - begun < SECONDS


# -- what is still found ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><TITLE lang=en>502 Bad\nGateway</TITLE>", "502 Bad"),
        (b"<p>first</p><h1 class='x'>A &amp; B</h1>", "A & B"),
        (b"<p>only <b>text</b></p>", "only"),
        (b"\xef\xbb\xbf <title>with a mark</title>", "with a mark"),
        (b'{"request": "' + b"x" * 9_000 + b'", "error": "bad where"}', "bad where"),
        (b'{"error": "", "message": "second"}', "second"),
        (b'"just a text"', "just a text"),
        (b'{"error": "cut', '{"error": "cut'),
        (b" " * 9_000 + b"late", "late"),
    ],
)
def test_the_sentence_of_a_body(body: bytes, said: str) -> None:
    """The message is the title, the heading or the first line; of JSON, its error."""
    assert sentence(body) == said


# -- no event in a message (P7) --------------------------------------------------------------------


def shows_an_event(text: str) -> bool:
    return any(part in text for part in ("Items", "u1@", "insert", "1704067200"))


@pytest.mark.parametrize("status", [201, 202, 203, 206, 226, 300, 304, 399])
def test_no_event_of_an_answer_that_is_no_200_is_shown(status: int) -> None:
    """A response 203 or 206 with events is refused without a quotation."""
    said = verdict(status, {}, LINE + b"\n" + LINE, OURS, 0.0)
    assert type(said) is Refused
    assert str(status) in str(said)
    assert not shows_an_event(str(said))


@pytest.mark.parametrize("status", [400, 404, 407, 429, 500, 502])
@pytest.mark.parametrize(
    "body",
    [
        LINE,
        LINE[:60],
        b"[" + LINE + b"]",
        json.dumps({"error": LINE.decode()}).encode(),
        json.dumps({"error": EVENT}).encode(),
        json.dumps({"error": str(EVENT)}).encode(),
        json.dumps({"error": json.dumps(LINE.decode())}).encode(),
        b"<title>" + LINE + b"</title>",
        b"<pre>" + LINE.replace(b'"', b"&quot;") + b"</pre>",
        b'{ "event" : "Items sold", "x": NaN',
    ],
)
def test_no_event_in_the_body_of_an_error_is_shown(status: int, body: bytes) -> None:
    """Events in the body of an error are not shown."""
    assert not shows_an_event(str(verdict(status, {}, body, OURS, 0.0)))


@pytest.mark.parametrize(
    "reply",
    [
        sized(LINE, "Content-Type: text/html"),
        sized(b"<title>" + LINE + b"</title>"),
        sized(b"<pre>" + LINE.replace(b'"', b"&#34;")),
        chunked(LINE[:20], LINE[20:], last=LINE[30:] + b"\r\n"),
        head("200 OK", "Transfer-Encoding: chunked") + LINE + b"\r\n",
        LINE + b"\r\n\r\n",
        head("200 OK").removesuffix(b"\r\n") + LINE + b"\r\n\r\n",
        sized(LINE, status="203 Non-Authoritative"),
        sized(LINE, "Content-Range: bytes 0-90/900", status="206 Partial"),
    ],
    ids=["html", "title", "page", "chunk", "first chunk", "status line", "header", "203", "206"],
)
def test_no_event_that_comes_in_the_wrong_place_is_shown(reply: bytes) -> None:
    """Events in a page, or in bytes that break HTTP's framing, are not shown."""
    with pytest.raises(EtlError) as caught:
        fetch(reply)
    assert not shows_an_event(str(caught.value))
    assert caught.value.__suppress_context__ or not shows_an_event(repr(caught.value.__context__))


@pytest.mark.parametrize(
    "last",
    [
        *(LINE[:size] for size in (2, 20, 40, 60, 100)),
        *(LINE[size:] for size in (10, 40, 80)),
        LINE + LINE,
        b"[" + LINE,
        json.dumps(LINE.decode()).encode(),
    ],
)
def test_no_part_of_an_event_that_ends_an_answer_is_shown(last: bytes) -> None:
    """The last line of a response that was cut off is not shown: it may be part of an event."""
    quoted: Callable[[str], str] = partial(quote, connection=OURS)
    with pytest.raises(Truncated, match="inside a line") as caught:
        list(read([LINE + b"\n" + last], quoted=quoted))
    assert not shows_an_event(str(caught.value))


@pytest.mark.parametrize("text", ["upstream timed out", "terminated: by peer", "error 500, sorry"])
def test_a_sentence_that_ends_an_answer_is_shown(text: str) -> None:
    """A sentence at the end of a response is shown."""
    assert quote(text, OURS) == text
    assert quote('{"error": "cut of', OURS) == '{"error": "cut of'
    assert quote('{"event": "x"}', OURS) == HIDDEN
    assert quote('{"error": "bad", "event": "x"}', OURS) == HIDDEN


# -- credentials that were refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "password", "hint"),
    [
        ("reader", '"hunter2"', "The secret begins and ends with a quotation mark"),
        ("reader", "'hunter2'", "The secret begins and ends with a quotation mark"),
        ("reader", "“hunter2”", "The secret begins and ends with a quotation mark"),
        ('"reader"', "hunter2", "The name begins and ends with a quotation mark"),
        ("reader", " hunter2", "The secret begins or ends with a space"),
        ("reader ", "hunter2", "The name begins or ends with a space"),
        ("reader", "hunter2\r\nhunter2", "The secret has a line break or another sign that"),
        ("rea\u200bder", "hunter2", "The name has a line break or another sign that"),
        ("reader", "\ufeffhunter2", "The secret has a line break or another sign that"),
        ("reader", 'hunt"er2', None),
        ("reader", '"', None),
    ],
)
@pytest.mark.parametrize(("status", "body"), [(401, b""), (400, b"Unable to authenticate request")])
def test_a_refusal_hints_at_quotation_marks(
    user: str, password: str, hint: str | None, status: int, body: bytes
) -> None:
    """A refusal hints at quotation marks around credentials."""
    said = str(verdict(status, {}, body, Connection("https://x", user, Secret(password), 1), 0.0))
    assert (hint in said) if hint else ("begins" not in said)
    assert "hunter2" not in said


def test_quotes_are_sent_as_they_are() -> None:
    """Quotation marks in credentials are sent: they may be part of the secret."""
    with serving(sized(b"")) as server:
        quoted = Connection(server.url, "reader", Secret('"secret"'), 1)
        with stream(quoted, DAY, timeouts=CALM) as answer:
            assert b"".join(answer) == b""
        assert "Basic cmVhZGVyOiJzZWNyZXQi" in server.requests[0]
