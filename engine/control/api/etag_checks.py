"""ETag checks: the conditional headers of changes and of reads (RFC 9110, 13).

If-Match and If-Unmodified-Since guard changes; If-None-Match and If-Modified-Since answer a read
with 304. A header with etags overrides the one with a date, and a malformed date is ignored.
Starlette handles If-Range, of files.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import Headers

from engine.catalog.resources import Resource
from engine.control.api.problems import Problem, cut, invalid
from engine.errors import EtagMismatch

MOST_TAGS = 100  # of one header
_LONGEST_DATE = 64


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The conditions of a change; None for those that its client did not set.

    etags   the allowed versions, without quotes; empty: any version (`*`)
    before  the latest moment of the last change, in whole seconds since the epoch
    """

    etags: frozenset[str] | None = None
    before: int | None = None

    def check(self, resource: Resource) -> None:
        """Raise EtagMismatch unless the version of a resource is allowed."""
        if self.etags is not None:
            if self.etags and resource.etag not in self.etags:
                raise EtagMismatch(", ".join(sorted(self.etags)), resource.etag)
        elif self.before is not None and resource.updated_at // 1000 > self.before:
            raise EtagMismatch("If-Unmodified-Since", resource.etag)


async def _preconditions(request: Request) -> Preconditions:
    headers = request.headers
    etags = etags_of(headers.getlist("if-match"))
    if etags is None and "if-match" in headers:  # an empty header allows nothing
        raise _missing()
    return Preconditions(etags, moment_of(headers.get("if-unmodified-since")))


Bound = Annotated[Preconditions, Depends(_preconditions)]


def bound_to(*, required: bool) -> dict[str, Any]:
    """Return the If-Match header of a change for its OpenAPI."""
    description = "The etag of the version that is changed, or several; * for any."
    schema = {"type": "string", "minLength": 1, "pattern": "^[!-~]+$"}
    header = {"name": "if-match", "in": "header", "required": required}
    return {"parameters": [header | {"description": description, "schema": schema}]}


def needed(bound: Preconditions) -> Preconditions:
    """Return the conditions of a change; raise Problem without If-Match."""
    if bound.etags is None:
        raise _missing()
    return bound


def _missing() -> Problem:
    detail = (
        "The header 'If-Match' is missing in the request. Please provide the header and try again."
    )
    return Problem("1403-400", "Header is missing", detail)


def etags_of(values: Iterable[str]) -> frozenset[str] | None:
    """Parse the etags of a header, with or without quotes, weak or not; empty for `*`.

    None for a header without an etag. Etags of this server have no comma.
    """
    members = [each.strip() for value in values for each in _members(value)]
    etags = {cut(each.removeprefix("W/").strip().strip('"')) for each in members if each}
    if len(etags) > MOST_TAGS:
        raise invalid("1400-400", f"A header names more than {MOST_TAGS} etags.")
    etags.discard("")
    if not etags:
        return None
    return frozenset() if "*" in etags else frozenset(etags)


def _members(value: str) -> Iterator[str]:
    """Split a header at its commas, but for those between quotes."""
    pieces, member = value.split(",", 2 * MOST_TAGS), ""
    for number, piece in enumerate(pieces, 1):
        member += piece
        if member.count('"') == 1 and any('"' in each for each in pieces[number:]):
            member += ","
        else:
            yield member
            member = ""


def moment_of(text: str | None) -> int | None:
    """Parse an HTTP date as seconds since the epoch; None if it is malformed."""
    if text is None or len(text) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int((moment - datetime.fromtimestamp(0, UTC)).total_seconds())
    except (ValueError, OverflowError, IndexError):
        return None


def status_of_read(request: Headers, response: Headers) -> int:
    """Return the status of a read whose response is a 200 with these headers: 200, 304 or 412."""
    current = etags_of([response.get("etag", "")])
    modified = moment_of(response.get("last-modified"))
    wanted = etags_of(request.getlist("if-match"))
    if wanted is not None:
        if wanted and (current is None or not wanted & current):
            return 412
    elif _is_later(modified, moment_of(request.get("if-unmodified-since"))):
        return 412
    cached = etags_of(request.getlist("if-none-match"))
    if cached is not None:
        return 304 if current is not None and (not cached or cached & current) else 200
    since = moment_of(request.get("if-modified-since"))
    return 304 if None not in (modified, since) and not _is_later(modified, since) else 200


def _is_later(modified: int | None, moment: int | None) -> bool:
    return modified is not None and moment is not None and modified > moment
