"""Responses without events: our errors and their messages; rate-limit headers. Pure.

What a server sends is cut to a bounded length first, and no regular expression here can backtrack.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import quote as percent_encoded

import orjson
import re2

from engine.errors import RateLimited, Refused, TooLate, Unavailable
from engine.model.flow import Connection

MOST_DATE = 64  # characters of a date in a header that are parsed
SOME = 4  # least characters of a credential that is cut off at the end of a text
SEARCHED = 4096  # characters of a text that are searched for a sentence
SHOWN = 200  # characters of a message that came from a server
LONGEST_DATE = 100  # characters of a header that may be a number of seconds or a date
MASK = "***"
BOM = b"\xef\xbb\xbf"
HIDDEN = "[not shown: it may be part of an event]"
TITLE = re2.compile(r"(?is)<(title|h1)[^>]*>(.*?)</")
TAG = re2.compile(r"(?s)<[^>]*>")
EVENT_KEYS = ('"event":', '"properties":', '"distinct_id":', '"$insert_id":')
JSON_SIGNS = ('":', '"}', '"]', '",', "{", "}")
QUOTES = "\"'`\u201c\u201d\u2018\u2019"


def verdict(
    status: int, headers: Mapping[str, str], body: bytes, connection: Connection, now: float
) -> Refused | RateLimited | Unavailable:
    """Return the error for a response other than 200."""
    # Below 400 a body may be events; that of a 407 may repeat the credentials of a proxy.
    readable = status >= 400 and status != 407
    said = clean(hidden_event(sentence(body)), connection) if readable else ""
    message = f"Mixpanel answered {status}" + (f": {said}" if said else ".")
    low = said.lower()
    if status == 429:
        return RateLimited(message, retry_after(headers, now))
    if status == 408 or status >= 500 or (status == 400 and "timeout error" in low):
        return Unavailable(message, retry_after(headers, now))
    if status == 401 or "unable to authenticate" in low:
        hint = "Check the name and the secret of the service account, and the host: its region."
        hint += _oddities(connection)
    elif status == 403 or "not a member of this project" in low:
        hint = "Check the number of the project, and that the service account may read it."
    elif status == 402:
        hint = "The plan of the project does not include this export."
    elif status == 407:
        message = f"A proxy in front of {connection.host} answered 407"
        hint = "It refuses the name and password for it: check HTTPS_PROXY."
    elif status == 404:
        hint = f"Check the host: {connection.host} has no export endpoint."
    elif "to_date cannot be later than today" in low:
        hint = "Ask for days up to today, by the clock of the project's time zone or by UTC."
        return TooLate(f"{message.rstrip('.')}. {hint}")
    elif status < 400:
        hint = "Check the host, and a proxy in between: an export is answered with 200."
    else:
        hint = "Check the days, the events and the `where` expression."
    return Refused(f"{message.rstrip('.')}. {hint}")


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds of `Retry-After`; None if it is missing or unreadable.

    A date counts from the date of the response, so that a wrong clock here does no harm.
    """
    value = headers.get("retry-after", "").strip()[: LONGEST_DATE + 1]
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20})?", value):
        return float(value)
    until = _seconds(value)
    answered = _seconds(headers.get("date", ""))
    return None if until is None else max(0.0, until - (now if answered is None else answered))


def answered_at(headers: Mapping[str, str]) -> int | None:
    """Return the server's clock by its `Date`, in ms since the epoch; None if unreadable."""
    seconds = _seconds(headers.get("date", "")[:MOST_DATE])
    return None if seconds is None else int(seconds * 1000)


def _seconds(date: str) -> float | None:
    """Return an HTTP date as seconds since the epoch; None if it is unreadable."""
    if len(date) > LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def is_page(body: bytes) -> bool:
    """Return whether `body` is HTML, whatever its content type."""
    return body.removeprefix(BOM).lstrip()[:1] == b"<"


def sentence(body: bytes) -> str:
    """Return the message of an error's body: its JSON's error, its page's title, or its first line.

    Only the first bytes are read, except of JSON, which has to be parsed as a whole.
    """
    body = body.removeprefix(BOM).lstrip()
    text = body[:SEARCHED].decode(errors="replace")
    if body[:1] in (b"{", b"[", b'"'):
        text = _error_in(body) or text
    elif is_page(body):
        title = TITLE.search(text)
        text = html.unescape(title[2] if title else TAG.sub("\n", text))
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _error_in(body: bytes) -> str:
    """Return the error's text in JSON, or the JSON itself; "" if it is too deep to be encoded."""
    try:
        value = orjson.loads(body)
        while isinstance(value, dict):
            names = [name for name in ("error", "message", "detail", "status") if value.get(name)]
            value = value[names[0]] if names else orjson.dumps(value).decode()
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
    except (ValueError, orjson.JSONEncodeError):
        return ""
    return text[:SEARCHED]


def hidden_event(text: str) -> str:
    """Return `text`, or HIDDEN if it may hold an event."""
    plain = _unescaped(text)
    return HIDDEN if any(key in plain for key in EVENT_KEYS) else text


def quote(text: str, connection: Connection) -> str:
    """Return a text found in place of events, or HIDDEN if it may be part of an event.

    A sentence or an error's JSON is shown.
    """
    text = text[:SEARCHED].strip()
    plain = _unescaped(text)
    json_like = text.startswith("[") or any(sign in plain for sign in JSON_SIGNS)
    if json_like and not plain.startswith('{"error":'):
        return HIDDEN
    return clean(hidden_event(text), connection)


def _unescaped(text: str) -> str:
    """Return the start of `text` without escapes and spaces, with one kind of quotation mark."""
    return "".join(text[:SEARCHED].replace("\\", "").replace("'", '"').split())


def _oddities(connection: Connection) -> str:
    """Return a hint at quotation marks, spaces and invisible characters in the credentials."""
    values = {"name": connection.username, "secret": connection.password.reveal()}
    hints = []
    for what, value in values.items():
        if len(value) > 1 and value[0] in QUOTES and value[-1] in QUOTES:
            hints.append(f"The {what} begins and ends with a quotation mark, which is sent too.")
        elif value != value.strip():
            hints.append(f"The {what} begins or ends with a space, which is sent too.")
        elif not value.isprintable():
            hints.append(
                f"The {what} has a line break or another sign that nobody sees, which is sent too."
            )
    return "".join(f" {hint}" for hint in hints)


def clean(text: str, connection: Connection) -> str:
    """Return `text` printable, short, and without the credentials (P7).

    A credential that is cut off at the end of `text` is masked too. A short user name is masked
    only where it is a whole word: as a part of words it would spoil the message.
    """
    text = text[:SEARCHED]
    user, password = connection.username, connection.password.reveal()
    both = base64.b64encode(f"{user}:{password}".encode()).decode()
    secrets = {shape for secret in (password, both) for shape in _shapes(secret) if shape}
    shapes = secrets.union(filter(None, _shapes(user)))
    for shape in sorted(shapes, key=len, reverse=True):
        if shape in secrets or len(shape) >= SOME:
            text = text.replace(shape, MASK)
        else:
            text = _mask_word(text, shape)
    if cut := max(_begun(text, shapes), key=len, default=""):
        text = text.removesuffix(cut) + MASK
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _mask_word(text: str, word: str) -> str:
    """Mask `word` in `text` where no letter or digit is next to it."""
    masked, end = "", 0
    while (start := text.find(word, end)) >= 0:
        before, after = text[start - 1 : start], text[start + len(word) :][:1]
        is_word = not (before.isalnum() or after.isalnum())
        masked += text[end:start] + (MASK if is_word else word)
        end = start + len(word)
    return masked + text[end:]


def _begun(text: str, shapes: Iterable[str]) -> Iterator[str]:
    """Yield the ends of `text` that are the start of one of `shapes`, from SOME characters on."""
    for shape in shapes:
        for size in range(SOME, min(len(shape), len(text) + 1)):
            if text.endswith(shape[:size]):
                yield shape[:size]


def _shapes(secret: str) -> tuple[str, ...]:
    """Return the ways in which a server may repeat `secret`: plain, in a URL, JSON or HTML."""
    in_json = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]
    in_url = percent_encoded(secret), percent_encoded(secret, safe="")
    return secret, *in_url, *in_json, html.escape(secret)
