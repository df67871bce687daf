"""What the conditional headers of a request ask for (RFC 9110, 13), of changes and of reads.

If-Match and If-Unmodified-Since guard changes; If-None-Match and If-Modified-Since spare a client
what it has. Where a header of a kind with etags is sent, the one with a date is ignored, and so is
a date that is none. If-Range is the files' own (Starlette answers it).
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
    """What a change is bound to; None: nothing.

    etags   any of these, without their quotes; empty: any version (`*`)
    before  the last change was made by then, in whole seconds since the epoch
    """

    etags: frozenset[str] | None = None
    before: int | None = None

    def check(self, resource: Resource) -> None:
        """Raise Stale unless the resource is in a version that they allow."""
        if self.etags is not None:
            if self.etags and resource.etag not in self.etags:
                raise EtagMismatch(", ".join(sorted(self.etags)), resource.etag)
        elif self.before is not None and resource.updated_at // 1000 > self.before:
            raise EtagMismatch("If-Unmodified-Since", resource.etag)


async def _preconditions(request: Request) -> Preconditions:
    headers = request.headers
    etags = etags_of(headers.getlist("if-match"))
    if etags is None and "if-match" in headers:  # whose etag was lost: it is no consent
        raise _missing()
    return Preconditions(etags, moment_of(headers.get("if-unmodified-since")))


Bound = Annotated[Preconditions, Depends(_preconditions)]


def bound_to(*, required: bool) -> dict[str, Any]:
    """The header of a change for its OpenAPI."""
    words = "The etag of the version that is changed, or several; * for any."
    schema = {"type": "string", "minLength": 1, "pattern": "^[!-~]+$"}
    header = {"name": "if-match", "in": "header", "required": required}
    return {"parameters": [header | {"description": words, "schema": schema}]}


def needed(bound: Preconditions) -> Preconditions:
    """The same, where a change has to be bound to an etag."""
    if bound.etags is None:
        raise _missing()
    return bound


def _missing() -> Problem:
    detail = (
        "The header 'If-Match' is missing in the request. Please provide the header and try again."
    )
    return Problem("1403-400", "Header is missing", detail)


def etags_of(values: Iterable[str]) -> frozenset[str] | None:
    """The etags of a header, with or without their quotes, weak or not; empty for `*`, any.

    None where there is none. Ours hold no comma: one inside of quotes belongs to nobody's etag.
    """
    members = [each.strip() for value in values for each in _members(value)]
    found = {_bare(each) for each in members if each}
    if len(found) > MOST_TAGS:
        raise invalid("1400-400", f"A header names more than {MOST_TAGS} etags.")
    found.discard("")
    if not found:
        return None
    return frozenset() if "*" in found else frozenset(found)


def _members(value: str) -> Iterator[str]:
    """What commas separate: not those inside of quotes, but for a quote that nothing closes."""
    pieces, member = value.split(",", 2 * MOST_TAGS), ""
    for number, piece in enumerate(pieces, 1):
        member += piece
        if member.count('"') == 1 and any('"' in each for each in pieces[number:]):
            member += ","
        else:
            yield member
            member = ""


def _bare(member: str) -> str:
    return cut(member.removeprefix("W/").strip().strip('"'))


def moment_of(text: str | None) -> int | None:
    """A date of HTTP in seconds since the epoch; None for what is none."""
    if text is None or len(text) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int((moment - datetime.fromtimestamp(0, UTC)).total_seconds())
    except (ValueError, OverflowError, IndexError):
        return None


def status_of_read(request: Headers, response: Headers) -> int:
    """The status of a read whose answer is a 200 with these headers: 200, 304 or 412."""
    current = etags_of([response.get("etag", "")])
    modified = moment_of(response.get("last-modified"))
    wanted = etags_of(request.getlist("if-match"))
    if wanted is not None:
        if wanted and (current is None or not wanted & current):
            return 412
    elif _is_later(modified, moment_of(request.get("if-unmodified-since"))):
        return 412
    had = etags_of(request.getlist("if-none-match"))
    if had is not None:
        return 304 if current is not None and (not had or had & current) else 200
    since = moment_of(request.get("if-modified-since"))
    return 304 if None not in (modified, since) and not _is_later(modified, since) else 200


def _is_later(modified: int | None, moment: int | None) -> bool:
    return modified is not None and moment is not None and modified > moment
