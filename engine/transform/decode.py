"""Chunks of bytes -> batches of decoded events, and what could not be decoded, verbatim.

Pure: it knows neither where the bytes come from nor what an event means. It decides whether the
last line of a response ends cleanly (P1).
"""

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import NoReturn

import orjson

from engine.errors import PermanentError, Truncated
from engine.model.batch import CORRUPT, Batch, Reject
from engine.transform.exact_json import NOTHING, Record, loads_exact, suspicious_rows

Piece = bytes | Reject
Direct = Callable[[Iterator[Piece]], Iterator[Piece | Batch]]
"""Passes pieces on in their order; a block as its batch where that can be had directly."""

MARKERS = (b"terminated early", b"export terminated early")
SAMPLE = 1 << 16  # bytes of a block that tell how long its lines are
REGION = (
    " No event came before it, and a project that lives in another region answers so too: try the"
    " host https://data.mixpanel.com, https://data-eu.mixpanel.com or https://data-in.mixpanel.com."
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is in hand at once: about so many `lines` a batch, the rest in bytes.

    block    about the most that one batch holds, unless a single line is longer
    direct   so many times as much is tried directly
    longest  a longer line is not decoded: it becomes one reject, in parts of `part`
    absurd   a longer line is no export's
    """

    lines: int = 1000
    block: int = 1 << 19
    direct: int = 4
    longest: int = 16 << 20
    part: int = 1 << 20
    absurd: int = 256 << 20


DEFAULT_SIZES = Sizes()


def read(
    chunks: Iterable[bytes],
    sizes: Sizes = DEFAULT_SIZES,
    direct: Direct | None = None,
    *,
    whole: bool = False,
    quoted: Callable[[str], str] = lambda _: "…",
) -> Generator[Batch, None, None]:
    """Batches of `lines`, `records` and `rejects` from the decompressed bytes of one response.

    Lines end at byte 0x0A and nowhere else; chunks may be cut anywhere. Blank lines are no lines.
    Raises Truncated where the response shows that it is not whole: by Mixpanel's own line
    `terminated early`, or by a last line that is no event; PermanentError beyond `absurd`.
    `whole`: the bytes are known to be all there are, and the last line is one like any other.
    `quoted`: what an error may show of the response, short and without a credential (P7).
    """
    held: Reject | None = None  # a bad line that may turn out to be the last one
    seen = False
    for piece in _routed(iter(chunks), sizes, direct):
        if isinstance(piece, Batch):
            batch, ends_badly = piece, False
        elif isinstance(piece, Reject):
            batch, ends_badly = Batch(rejects=[piece]), False
        else:
            batch, ends_badly = _decoded(piece, seen)
        if held and (batch.lines or batch.rejects):
            batch.rejects.insert(0, held)
            held = None
        if ends_badly:
            held = batch.rejects.pop()
        seen = seen or bool(batch.lines)
        if batch.lines or batch.rejects:
            yield batch
    if held and not (whole or _is_whole(held.raw)):
        _cut_off(held.raw[:SAMPLE], quoted)
    if held:
        yield Batch(rejects=[held])


def _routed(
    chunks: Iterator[bytes], sizes: Sizes, direct: Direct | None
) -> Iterator[Piece | Batch]:
    """The pieces that are still to be decoded, and the batches that were had directly."""
    if direct is None:
        yield from _pieces(chunks, sizes)
        return
    times = sizes.direct
    large = replace(sizes, lines=sizes.lines * times, block=sizes.block * times)
    pieces = _pieces(chunks, large)
    first = next(pieces, b"")
    if isinstance(first, bytes):  # in parts, so that what one of them teaches helps the next
        pieces = chain(_bounded(first, sizes), pieces)
    else:
        pieces = chain([first], pieces)
    for piece in direct(pieces):
        if isinstance(piece, bytes):
            yield from _bounded(piece, sizes)
        else:
            yield piece


def _pieces(chunks: Iterator[bytes], sizes: Sizes) -> Iterator[Piece]:
    """Blocks of whole lines, without the last line end, and over-long lines as rejects."""
    waiting: list[bytes | memoryview] = []
    size, enough = 0, sizes.block // 4
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        cut = chunk.rfind(b"\n") if size >= enough else -1
        if cut < 0 and size <= sizes.longest:
            continue
        if cut >= 0:
            waiting[-1] = memoryview(chunk)[:cut]
            block, rest = b"".join(waiting), chunk[cut + 1 :]
        else:
            block, _, rest = b"".join(waiting).rpartition(b"\n")
        if block:
            lines = yield from _bounded(block, sizes)
            # The next block gathers the bytes that `sizes.lines` of these lines have.
            enough = min(sizes.block, sizes.lines * len(block) // lines)
        while len(rest) > sizes.longest:
            rest = yield from _too_long(rest, chunks, sizes)
            block, _, rest = rest.rpartition(b"\n")
            yield from _bounded(block, sizes)
        waiting, size = [rest], len(rest)
    yield from _bounded(b"".join(waiting).removesuffix(b"\n"), sizes)


def _bounded(block: bytes, sizes: Sizes) -> Generator[Piece, None, int]:
    """`block`, in several where it is too large, over-long lines in parts; returns its lines."""
    lines = block.count(b"\n", 0, SAMPLE) * len(block) // min(SAMPLE, len(block) or 1) + 1
    step = len(block) // max(1, lines // sizes.lines, len(block) // sizes.block)
    start = 0
    while start <= len(block):
        end = block.find(b"\n", start + step)
        piece = block[start : end if end >= 0 else len(block)]
        start += len(piece) + 1
        if len(piece) <= sizes.longest:
            yield piece
            continue
        for line in piece.split(b"\n"):
            if len(line) <= sizes.longest:
                yield line
            else:
                yield from _too_long(line + b"\n", iter(()), sizes)
    return lines


def _too_long(data: bytes, chunks: Iterator[bytes], sizes: Sizes) -> Generator[Reject, None, bytes]:
    """The over-long line that `data` begins with, in parts; returns what follows it."""
    at = part = sent = 0
    while True:
        end = data.find(b"\n", at, at + sizes.part + 1)
        if end < 0 and len(data) - at <= sizes.part:
            more = _gathered(chunks, sizes.part)
            if not more:  # P1
                raise Truncated(
                    f"The response breaks off inside a line of {sent + len(data) - at:,} bytes."
                )
            data, at = data[at:] + more, 0
            continue
        raw = data[at : end if end >= 0 else at + sizes.part]
        at += len(raw)
        if sent + len(raw) > sizes.absurd:
            raise PermanentError(
                f"The response has a line of more than {sizes.absurd / 2**20:g} MiB; no export has"
                " such a line: check the host."
            )
        message = f"the line is longer than {sizes.longest:,} bytes; this is its part from {sent:,}"
        sent += len(raw)
        if end >= 0:
            message += f" to its end at {sent:,}"
        yield Reject("lines", CORRUPT, message, raw, part=part)
        part += 1
        if end >= 0:
            return data[at + 1 :]


def _gathered(chunks: Iterator[bytes], enough: int) -> bytes:
    """The next chunks up to one with a line end, or `enough` bytes; joined once, however small."""
    found, size = [], 0
    for chunk in chunks:
        found.append(chunk)
        size += len(chunk)
        if size >= enough or b"\n" in chunk:
            break
    return b"".join(found)


def _decoded(block: bytes, seen: bool) -> tuple[Batch, bool]:
    """The batch in `block`, and whether its last line is bad; `seen`: events came before it."""
    lines = block.split(b"\n")
    if b"\r" in block:
        lines = [line.removesuffix(b"\r") for line in lines]
    try:
        records: list[Record] = [orjson.loads(line) for line in lines]
        doubted = suspicious_rows(block, lines, records, len(records))
    except (ValueError, TypeError, KeyError):  # some line is blank, or no event
        lines = [line for line in lines if line.strip()]
        records = [_event(line) or NOTHING for line in lines]
        failed = {row for row, record in enumerate(records) if record is NOTHING}
        events = len(records) - len(failed)
        doubted = failed | suspicious_rows(b"\n".join(lines), lines, records, events)
    if not doubted:
        return Batch(lines=lines, records=records), False

    bad: dict[int, Reject] = {}
    for row in sorted(doubted):
        try:
            records[row] = loads_exact(lines[row])
        except ValueError as error:
            if lines[row].strip() in MARKERS:
                _ended_early(seen or row > len(bad))
            bad[row] = Reject("lines", CORRUPT, f"not an event: {_reason(error)}", lines[row])
    batch = Batch(
        lines=[line for row, line in enumerate(lines) if row not in bad],
        records=[record for row, record in enumerate(records) if row not in bad],
        rejects=list(bad.values()),
    )
    return batch, len(lines) - 1 in bad


def _event(line: bytes) -> Record | None:
    """The event in `line` as orjson reads it, None where it reads none."""
    try:
        record: Record = orjson.loads(line)
        return record if type(record["properties"]) is dict and "event" in record else None
    except (ValueError, TypeError, KeyError):
        return None


def _reason(error: ValueError) -> str:
    """Why a line could not be decoded, with the place in it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (character {error.pos + 1})"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not UTF-8"
    return str(error)


def _ended_early(seen: bool) -> NoReturn:  # P1
    """Mixpanel answers 200 before it knows whether it can finish, and says so by this line."""
    error = Truncated(
        f"Mixpanel ended the response early ('terminated early').{'' if seen else REGION}"
    )
    error.empty = not seen
    raise error


def _is_whole(line: bytes) -> bool:
    """Whether a bad line is an event from end to end: one with a key twice, say.

    What is cut off from an object is none, however leniently one reads it. So such a line ends a
    response as well as any, and to ask again would bring it again.
    """
    try:
        record = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(record, dict)
        and "event" in record
        and isinstance(record.get("properties"), dict)
    )


def _cut_off(line: bytes, quoted: Callable[[str], str]) -> NoReturn:  # P1
    """The last line of the response is no event: something is missing from here on."""
    try:
        said = orjson.loads(line)["error"]
    except (ValueError, TypeError, KeyError):
        shown = quoted(line.decode(errors="replace").strip())
        raise Truncated(f"The response ends inside a line: {shown}") from None
    raise Truncated(f"Mixpanel ended the response with an error: {quoted(str(said))}")
