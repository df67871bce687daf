"""The rejected lines of a batch, read from the batch's files beside the table."""

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import orjson

from engine.errors import DatasetError, disk_error
from engine.transform.moments import utc_day

Json = dict[str, Any]
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class RejectedLines:
    """The rejected lines of a batch that a replay reads.

    folder   where the files of rejects are
    days     the days of the batch
    current  those of `days` that were not pulled again since; lines of other days are left out
    """

    folder: str
    days: tuple[date, ...]
    current: frozenset[date]

    def read(self, left_out: list[int]) -> Generator[bytes, None, None]:
        """Yield the lines of `current` days; add the number of other lines to `left_out`."""
        all_current = self.current == set(self.days)

        def is_current(entry: Json) -> bool:
            if all_current or self._day(entry) in self.current:
                return True
            left_out[0] += not entry.get("_part")  # a line in several parts is one line
            return False

        yield from _chunks(filter(is_current, entries(Path(self.folder))))

    def _day(self, entry: Json) -> date | None:
        """Return the day of a rejected line, by its `time`; None if it is not certain."""
        if len(self.days) == 1:
            return self.days[0]
        try:
            found = utc_day(orjson.loads(raw_of(entry))["properties"]["time"])
            day = None if found is None else EPOCH + timedelta(found)
        except (ValueError, KeyError, TypeError, OverflowError):
            return None
        return day if day in self.days else None


def entries(folder: Path) -> Iterator[Json]:
    """Yield the rejects of a batch, one at a time, as the files in `folder` hold them.

    Raises DatasetError for a file that was changed or cannot be read.
    """
    for path in sorted(folder.glob("*.json")):
        with disk_error(f"read {path}"), path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    entry: Json = json.loads(line)
                    raw_of(entry)
                    reason_of(entry)
                except (ValueError, LookupError, TypeError, AttributeError):
                    raise DatasetError(
                        f"{path}, line {number}, is no reject any more: the file was changed or "
                        "damaged. Put it back as it was."
                    ) from None
                yield entry


def raw_of(entry: Json) -> bytes:
    """Return the rejected line, or the part of one, byte for byte (P3)."""
    text: str = entry["_corrupt_record"]
    return text.encode("utf-8", "surrogateescape")


def reason_of(entry: Json) -> tuple[str, str]:
    """Return the code and the sentence that say why the line was rejected."""
    error = entry["_errors"][0]
    return error["code"], error["message"]


def _chunks(found: Iterator[Json]) -> Generator[bytes, None, None]:
    """Yield the bytes of rejects: a line each, the parts of a long line together."""
    inside = False
    for entry in found:
        raw, part = raw_of(entry), entry.get("_part")
        if inside and not part:
            yield b"\n"
        inside = part is not None
        if inside:
            yield raw
        else:  # the stages strip a whole \r\n
            yield raw + (b"\r\n" if raw.endswith(b"\r") else b"\n")
    if inside:
        yield b"\n"
