"""What fast decoders lose without a word, how that is seen, and the slow one that loses nothing.

Pure: it knows a line, or a block of them, and nothing else.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import orjson

Record = dict[str, Any]
Integers = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

COLLECTIONS = frozenset((dict, list))
NOTHING: Record = {}  # stands for a line that was not decoded
DEEPEST = 1024  # levels of nesting, as far as orjson goes
NUMBERS = range(-(1 << 63), 1 << 64)  # the integers that orjson decodes exactly
# A run of digits that may be an integer outside NUMBERS; a string begins with a quote.
LONG_NUMBER = re.compile(rb'(?<![0-9.eE+"])(?:-[0-9]{19,}|[0-9]{20,})')
STEP = 1 << 18  # bytes that are looked at together: what comes of them stays in the cache
LONG = 256  # a longer run of digits may be a number that no double holds: those have 309
# The end of a number that may be beyond any double: the plain way rejects such a record.
EXPONENT = re.compile(rb"[eE]\+?[0-9]{3,}[],}\s]")
COLON = re.compile(rb'[\x00-"]:')  # after a key, or in a text


# orjson is fast but loses two things without a word: of a key that occurs twice it keeps the last
# value, and an integer beyond 64 bits becomes a float. To look into every record for them would
# cost more than decoding it, so two sums over the bytes of a whole block prove that none is there:
#
# - In any valid line the colon after a key follows the key's quote or white space: a byte <= 0x22.
#   So a block has at least as many such colons as its text has keys, and its text has at least as
#   many keys as were decoded. If the colons are no more than the keys that were decoded in the two
#   upper levels, all three numbers are one: no key was lost.
# - An integer beyond 64 bits has at least 19 digits. Wherever one cuts the bytes into fours, such a
#   run holds four neighbouring fours of nothing but digits.
#
# Neither holds in reverse (a colon in a text, a nested object, a number in a string), so where
# one fails, each line is looked at more closely, and `loads_exact` decodes what stays in doubt.
# No answer about a line depends on its neighbours, so none depends on how the bytes arrived.


def suspicious_rows(
    block: bytes, lines: list[bytes], records: list[Record], events: int
) -> set[int]:
    """The rows where orjson may have lost something.

    Raises KeyError or TypeError unless just so many `records` are `events`, and the others NOTHING.
    """
    properties = [record["properties"] for record in records if "event" in record]
    keys = sum(map(len, records)) + sum(map(dict.__len__, properties))
    if len(properties) != events:
        raise KeyError("event")
    text = np.frombuffer(block, np.uint8)
    colons = np.concatenate([np.zeros(0, np.bool_), *key_colons(text)])  # an empty block too
    # The digits are 0x30 to 0x39. Six signs up to 0x3f pass as well, which costs a second look.
    fours = np.frombuffer(block, np.uint32, len(block) // 4) & np.uint32(0xF0F0F0F0) == 0x30303030
    eights = fours[:-1] & fours[1:]
    sixteens = eights[:-2] & eights[2:]
    keys_agree, numbers_fit = np.count_nonzero(colons) == keys, not sixteens.any()
    if keys_agree and numbers_fit:
        return set()
    ends = _ends(block)
    doubted = set() if keys_agree else _lost_keys(lines, records, colons, ends)
    return doubted if numbers_fit else doubted | _lost_digits(block, sixteens, ends)


def _lost_keys(
    lines: list[bytes], records: list[Record], colons: Bools, ends: Integers
) -> set[int]:
    """The rows whose text may have more keys than their record."""
    found = each_line(colons, ends).tolist()
    upper = [len(record) + len(record.get("properties", NOTHING)) for record in records]
    doubted = set()
    for row, line in enumerate(lines):
        if found[row] == upper[row] or (more := found[row] - _keys(records[row])) == 0:
            continue
        # Without a doubled backslash every \\" is a quote inside a string: its colon is no key's.
        if b"\\\\" in line or more != line.count(b'\\":'):
            doubted.add(row)
    return doubted


def _lost_digits(block: bytes, sixteens: Bools, ends: Integers) -> set[int]:
    """The rows that have an integer beyond 64 bits."""
    sixteens[1:] &= ~sixteens[:-1]  # where each run begins
    places = 4 * np.flatnonzero(sixteens)
    # Three digits more, before and after the sixteen, make it a run of nineteen.
    text = np.frombuffer(block, np.uint8)
    around = text.take(places[:, None] + (-1, -2, -3, 16, 17, 18), mode="clip") & 0xF0 == 0x30
    more = np.logical_and.accumulate(around.reshape(-1, 2, 3), axis=2).sum(axis=(1, 2))
    places = places[more >= 3]
    rows = np.searchsorted(ends, places)
    doubted = set()
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        # The number begins at most four bytes before the place, or one after.
        number = LONG_NUMBER.search(block, max(0, place - 4), place + 24)
        if number and int(number[0]) not in NUMBERS:
            doubted.add(row)
    return doubted


def _ends(block: bytes) -> Integers:
    """Where each line of `block` ends."""
    text = np.frombuffer(block, np.uint8)
    parts = range(0, len(text), STEP)
    found = [np.flatnonzero(text[at : at + STEP] == ord("\n")) + at for at in parts]
    return np.concatenate([*found, [len(text)]])


def ends_of_objects(block: bytes) -> Integers | None:
    """Where each line ends, if each of them is one object; None if that is not certain.

    It begins and ends like one, no object can go on after a line that ends so with one that begins
    so; the caller sees that there are as many objects as lines.
    """
    if not block or block.endswith(b"\n"):
        return None
    text, ends = np.frombuffer(block, np.uint8), _ends(block)
    starts = np.append(ends[:-1] + 1, 0)
    begin, end = text.take(starts) == ord("{"), text.take(ends - 1) == ord("}")
    return ends if begin.all() and end.all() else None


def key_colons(text: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.bool_]]:
    """Where a colon follows a quote or white space, STEP bytes at a time."""
    before = 0
    for start in range(0, len(text), STEP):
        part = text[start : start + STEP]
        colons = part == ord(":")
        colons[1:] &= part[:-1] <= ord('"')
        colons[0] &= before <= ord('"')
        before = part[-1]
        yield colons


def has_huge_number(block: bytes) -> bool:
    """Whether there may be a number beyond any double.

    Where nothing decodes a value, nobody would see it: one with an exponent of three digits or
    more, or of more digits than a double can have before its point.
    """
    text = np.frombuffer(block, np.uint8)
    run = (text[:: LONG // 8] - ord("0")) < 10  # of unsigned bytes; every 32nd of them
    for apart in (1, 2, 4):  # eight digits in a row
        run = run[:-apart] & run[apart:]
    if run.any():
        return True
    for start in range(0, len(block), STEP):
        text = np.frombuffer(block[start : start + STEP + 8], np.uint8)
        digits = (text - ord("0")) < 10  # of unsigned bytes
        found = (text[1:-4] | 0x20) == ord("e")
        found &= digits[:-5]
        found &= digits[3:-2]  # the second digit, or the first one after a sign
        found &= digits[4:-1]
        found &= digits[2:-3] | (text[2:-3] == ord("+"))
        if any(EXPONENT.match(block, start + 1 + at) for at in np.flatnonzero(found).tolist()):
            return True
    return False


def each_line(found: npt.NDArray[np.bool_], ends: Integers) -> npt.NDArray[np.int64]:
    """How many there are in each line."""
    starts = np.concatenate(([0], ends[:-1] + 1))
    return np.add.reduceat(found.view(np.uint8), starts, dtype=np.int64)


def _keys(record: Record) -> int:
    """How many keys `record` has, at every level."""
    keys = 0
    nested: list[Any] = [record]
    for value in nested:
        children = value
        if type(value) is dict:
            keys += len(value)
            children = value.values()
        nested += [child for child in children if type(child) in COLLECTIONS]
    return keys


def has_keys_once(line: bytes) -> bool:
    """Whether no object in `line`, an event, has a key twice."""
    try:
        if len(COLON.findall(line)) == _keys(orjson.loads(line)):
            return True
        loads_exact(line)
    except ValueError:
        return False
    return True


def loads_exact(line: bytes) -> Record:
    """The event in `line`, exactly: the slow way, and the measure of the fast one.

    Integers keep all their digits, and a lone surrogate such as "\\ud83d" stays one. Raises
    ValueError for what is no JSON (RFC 8259, in UTF-8), for numbers that no float can hold, for a
    key that occurs twice in one object, beyond DEEPEST levels, and for what is no event.
    """
    try:
        record = json.loads(
            line.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _depth(record) > DEEPEST:
        raise ValueError("it is nested too deeply")
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - the caller's only failure
    for name in ("event", "properties"):
        if name not in record:
            raise ValueError(f"it has no {name!r}")
    if not isinstance(record["properties"], dict):
        raise ValueError("its 'properties' are no object")  # noqa: TRY004 - as above
    return record


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    """The object of `pairs`; ValueError names a key that occurs twice: one value would be lost."""
    found: Record = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name[:100]!r} occurs twice in one object")
        found[name] = value
    return found


def _depth(value: Any) -> int:
    """How many collections lie in one another."""
    depth, level = 0, [value]
    while level := [inner for inner in level if type(inner) in COLLECTIONS]:
        depth += 1
        level = [
            child for inner in level for child in (inner.values() if type(inner) is dict else inner)
        ]
    return depth


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:100]} is too large a number")
    return number
