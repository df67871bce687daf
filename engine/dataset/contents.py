"""What a table holds of each day, against what it held after this program's last commit there.

Each commit notes both figures in the table itself, as versions of app transactions, for each day
that it touches: so they survive checkpoints and the clean-up of the log, and no RESTORE takes
them back. Pure: it knows no table and no file.

    rows:<day>      how many rows the day held
    files:<day>     a number that its files have in common with no other set of files
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from hashlib import blake2b
from typing import Self

ROWS, FILES = "rows:", "files:"  # no position of a flow: those have a "/"
LARGEST = 1 << 62


def number_of(path: str) -> int:
    """A number for a file. The sum of those of a day's files, by `LARGEST`, is its `files`."""
    return int.from_bytes(blake2b(path.encode(), digest_size=8).digest(), "big") % LARGEST


def is_ours(path: str) -> bool:
    """Whether a file is named as this program names them: event_date=<day>/<batch-id>-<n>.parquet.

    Other programs add what no batch has: part-00000-<uuid>-c000.zstd.parquet.
    """
    folder, _, name = path.partition("/")
    batch, _, number = name.removesuffix(".parquet").rpartition("-")
    ours = folder.startswith("event_date=") and name.endswith(".parquet") and "/" not in name
    return ours and bool(batch) and number.isascii() and number.isdigit()


@dataclass(frozen=True, slots=True)
class Contents:
    """A day as the log has it: its rows, the number of its files, and what is wrong with those.

    foreign     at least one file was written by another program, as OPTIMIZE does
    gone        how many files are not on the disk, or cut off there
    """

    rows: int = 0
    files: int = 0
    foreign: bool = False
    gone: int = 0

    @classmethod
    def of(cls, files: Iterable[tuple[str, int]], gone: int = 0) -> Self:
        """Of these files: their paths and their rows."""
        found = list(files)
        numbers = sum(number_of(path) for path, _ in found) % LARGEST
        foreign = not all(is_ours(path) for path, _ in found)
        return cls(sum(rows for _, rows in found), numbers, foreign, gone)

    def plus(self, more: Self) -> Self:
        """With the files of `more` beside its own."""
        files = (self.files + more.files) % LARGEST
        foreign, gone = self.foreign or more.foreign, self.gone + more.gone
        return replace(self, rows=self.rows + more.rows, files=files, foreign=foreign, gone=gone)


@dataclass(frozen=True, slots=True)
class Change:
    """A day that is not as this program left it. `had`: rows then; None if nobody noted it."""

    day: date
    had: int | None
    rows: int
    gone: int
    undone: bool

    def __str__(self) -> str:
        if self.gone:
            files = "1 file" if self.gone == 1 else f"{self.gone:,} files"
            return f"{self.day} lacks {files} on the disk"
        if self.had is None:
            return f"{self.day} holds {self.rows:,} rows, and other ones when it was last written"
        if self.had == self.rows:
            return f"{self.day} holds the {self.rows:,} rows of an older version"
        return f"{self.day} holds {self.rows:,} rows and held {self.had:,} when it was last written"


def change(day: date, there: Contents, noted: Mapping[str, int]) -> Change | None:
    """How `day` differs from what was noted of it; None if nothing is to be said (P10).

    It is undone, and has to be pulled again, where it has lost rows or files, and where it has
    other files than it had, all of them this program's: only a RESTORE does that. A day that was
    only compacted is as it was; one with more rows, some of them another program's, is said.
    """
    had, files = noted.get(f"{ROWS}{day}"), noted.get(f"{FILES}{day}")
    if had is None or files == there.files:
        return Change(day, had, there.rows, there.gone, undone=True) if there.gone else None
    undone = bool(there.gone) or there.rows < had or not there.foreign
    if there.rows == had and not undone:
        return None
    return Change(day, had, there.rows, there.gone, undone)


def noted_after(
    day: date, before: Contents, after: Contents, noted: Mapping[str, int], *, whole: bool
) -> dict[str, int]:
    """What a commit notes of a day that it wrote whole, or else added rows to.

    What was lost before stays lost when rows are added: only a whole pull mends it.
    """
    lost = None if whole else change(day, before, noted)
    if lost is None or not lost.undone:
        return {f"{ROWS}{day}": after.rows, f"{FILES}{day}": after.files}
    if lost.had is None:
        return {}
    return {f"{ROWS}{day}": lost.had + after.rows - before.rows}


def notes_of(positions: Mapping[str, int]) -> set[str]:
    """The days, as they are written, of which something is noted."""
    return {name.removeprefix(ROWS) for name in positions if name.startswith(ROWS)}
