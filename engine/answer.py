"""What an answer other than events means: which error of ours, in which words. Pure.

It knows statuses, headers and bodies, and no connection.
"""

import base64
import html
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from engine.errors import RateLimited, Refused, TooLate, Unavailable
from engine.flow import Connection

MOST_DATE = 64  # characters of a date in a header that are looked at
SOME = 4  # characters at the end of a text that may be where a credential was cut off


def verdict(
    status: int, headers: Mapping[str, str], body: bytes, connection: Connection, now: float
) -> Refused | RateLimited | Unavailable:
    """What an answer other than 200 means. Mixpanel documents none; peers have recorded these."""
    said = clean(sentence(body), connection)
    told = f"Mixpanel answered {status}" + (f": {said}" if said else ".")
    low = said.lower()
    if status == 429:
        return RateLimited(told, retry_after(headers, now))
    if status == 408 or status >= 500 or (status == 400 and "timeout error" in low):
        return Unavailable(told, retry_after(headers, now))
    if status == 401 or "unable to authenticate" in low:
        hint = "Check the name and the secret of the service account, and the host: its region."
    elif status == 403 or "not a member of this project" in low:
        hint = "Check the number of the project, and that the service account may read it."
    elif status == 402:
        hint = "The plan of the project does not include this export."
    elif status == 404:
        hint = f"Check the host: {connection.host} has no export endpoint."
    elif "to_date cannot be later than today" in low:
        hint = "Ask for days up to today, by the clock of the project's time zone or by UTC."
        return TooLate(f"{told.rstrip('.')}. {hint}")
    elif 300 <= status < 400:
        hint = "Check the host."
    else:
        hint = "Check the days, the events and the `where` expression."
    return Refused(f"{told.rstrip('.')}. {hint}")


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds of `Retry-After`, which is a number or a date; a date counts from the answer's own.

    So a wrong clock on this machine does no harm. None where there is none or no sense in it.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    until = _seconds(value)
    answered = _seconds(headers.get("date", ""))
    return None if until is None else max(0.0, until - (now if answered is None else answered))


def answered_at(headers: Mapping[str, str]) -> int | None:
    """The server's own clock by its `Date`, in ms since the epoch; None without a readable one."""
    seconds = _seconds(headers.get("date", "")[:MOST_DATE])
    return None if seconds is None else int(seconds * 1000)


def _seconds(date: str) -> float | None:
    """An HTTP date as seconds since the epoch."""
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_page(body: bytes) -> bool:
    """Whether `body` is HTML, whatever its type says."""
    return body.lstrip()[:1] == b"<"


def sentence(body: bytes) -> str:
    """What an error's body says: the error in its JSON, the title of its page, its first line."""
    text = body.decode(errors="replace")
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        while isinstance(value, dict):
            names = [name for name in ("error", "message", "detail", "status") if name in value]
            value = value[names[0]] if names else json.dumps(value, ensure_ascii=False)
        text = str(value)
    if is_page(body):
        title = re.search(r"<(title|h1)[^>]*>(.*?)</", text, re.IGNORECASE | re.DOTALL)
        text = html.unescape(title[2] if title else re.sub(r"<[^>]*>", "\n", text))
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def clean(text: str, connection: Connection) -> str:
    """`text` as one may show it: printable, short, and without the credentials (P7).

    Nor does it end in the beginning of one, as what was cut off may.
    """
    user, password = connection.username, connection.password.reveal()
    both = base64.b64encode(f"{user}:{password}".encode()).decode()
    shapes = {shape for secret in (user, password, both) for shape in _shapes(secret) if shape}
    for shape in sorted(shapes, key=len, reverse=True):
        text = text.replace(shape, "***")
    begun = (shape[:size] for shape in shapes for size in range(SOME, len(shape)))
    if cut := max((part for part in begun if text.endswith(part)), key=len, default=""):
        text = text.removesuffix(cut) + "***"
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= 200 else text[:199] + "…"


def _shapes(secret: str) -> tuple[str, ...]:
    """How a server may write `secret` when it repeats it: plain, in a URL, in JSON, in HTML."""
    in_json = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]
    return secret, quote(secret), quote(secret, safe=""), *in_json, html.escape(secret)
