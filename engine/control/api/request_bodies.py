"""Request bodies: read whole, unpacked, and checked to be JSON that a response can repeat.

A body is JSON whatever its content type says: `curl -d` calls it a form.
"""

import json
import zlib
from contextlib import suppress
from email.message import Message as Fields
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from engine.control.api.problems import Problem, cut, empty_body, invalid

LARGEST_BODY = 1 << 20  # bytes
DEEPEST = 64  # nested lists and objects: far less than what Python can print
_MOST_GZIP_MEMBERS = 16  # of one body: each of them copies the rest of it
_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16 and UTF-32


async def read_body(scope: Scope, receive: Receive, *, ignore: bool) -> bytes:
    """Read a body to its end; return b"" for one to `ignore`. Problem where it is too large."""
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    size = int(announced) if announced.isdigit() and len(announced) < 20 else 0
    body, received, more = bytearray(), 0, True
    while more and max(size, received) <= LARGEST_BODY:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise invalid("1400-400", "The request broke off.")
        part = message.get("body", b"")
        received += len(part)
        body += b"" if ignore else part
        more = message.get("more_body", False)
    if max(size, received) > LARGEST_BODY:
        raise _too_large()
    return bytes(body)


def _too_large() -> Problem:
    detail = f"The request body is larger than {LARGEST_BODY:,} bytes."
    return Problem("1400-413", "Request too large", detail)


def decode_body(body: bytes, headers: Headers) -> bytes:
    """Return a body as UTF-8, without its compression and its byte order mark, or raise Problem."""
    encodings = [each.strip().lower() for each in headers.get("content-encoding", "").split(",")]
    encodings = [each for each in encodings if each not in ("", "identity")]
    if encodings in (["gzip"], ["x-gzip"]):
        body = _gunzip(body)
    elif encodings:
        raise _unsupported_media(
            f"The content encoding {cut(', '.join(encodings))} is not read here: send the body "
            "as it is, or with gzip."
        )
    elif body[:2] == b"\x1f\x8b":
        raise invalid(
            "1400-400",
            "The request body is not JSON, it looks like gzip: send Content-Encoding: gzip.",
        )
    charset = _charset(headers.get("content-type", ""))
    if charset not in ("", "utf-8", "utf8", "us-ascii", "ascii"):
        raise _unsupported_media(
            f"The charset {cut(charset)} is not read here: send JSON in UTF-8."
        )
    if body[:2] in _OTHER_BOMS or b"\0" in body[:4]:  # JSON starts with ASCII other than NUL
        raise _unsupported_media(
            "The request body is not in UTF-8, but UTF-16 or UTF-32: send it in UTF-8."
        )
    try:
        body.decode()
    except UnicodeDecodeError:
        raise invalid("1400-400", "The request body is not in UTF-8: send JSON in UTF-8.") from None
    return body.removeprefix(_BOM)


def _gunzip(body: bytes) -> bytes:
    unpacked = bytearray()
    for _ in range(_MOST_GZIP_MEMBERS):
        member = zlib.decompressobj(wbits=31)
        try:
            unpacked += member.decompress(body, LARGEST_BODY + 1 - len(unpacked))
        except zlib.error:
            raise invalid("1400-400", "The request body is not gzip, or damaged.") from None
        if len(unpacked) > LARGEST_BODY:
            raise _too_large()
        if not member.eof:
            raise invalid("1400-400", "The request body is not whole: its gzip stream breaks off.")
        body = member.unused_data
        if not body:
            return bytes(unpacked)
    raise invalid(
        "1400-400", f"The request body has more than {_MOST_GZIP_MEMBERS} members of gzip."
    )


def _charset(content_type: str) -> str:
    """Return the charset of a content type; "" where it names none."""
    fields = Fields()
    fields["content-type"] = content_type[:1000]
    with suppress(ValueError, LookupError):
        return str(fields.get_content_charset("")).strip()
    return "unknown"


def _unsupported_media(detail: str) -> Problem:
    return Problem("1400-415", "Unsupported media type", detail)


def check_json(body: bytes, *, repeated_keys: bool) -> None:
    """Raise Problem for a body that is not JSON, is null, or is nested more than DEEPEST levels.

    An object may have a key twice only with `repeated_keys`.
    """
    try:
        level = [orjson.loads(body)]
    except ValueError as error:
        raise invalid("1400-400", f"The request body is not JSON: {cut(error)}.") from None
    if level == [None]:
        raise empty_body()
    for _ in range(DEEPEST):
        level = [
            value
            for each in level
            if isinstance(each, dict | list)
            for value in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise invalid("1400-400", f"The request body is nested more than {DEEPEST} levels deep.")
    if not repeated_keys:
        json.loads(body, object_pairs_hook=_check_keys, parse_int=str, parse_float=str)


def _check_keys(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > 1:
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                detail = f'The request body has the key "{cut(key)}" twice in one object.'
                raise invalid("1400-400", detail)
            seen.add(key)
