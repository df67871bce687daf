"""Detect changes by other programs to days that this program wrote. Pure: no table, no file.

Each commit notes two figures of each day that it touches in the table itself, as versions of app
transactions. So they survive checkpoints and the clean-up of the log, and a RESTORE does not take
them back. To find changes, what the log says of a day now is compared with them.

    rows:<day>      how many rows the day held
    files:<day>     the `file_hash` of the day
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from typing import Self

from engine.dataset.layout import is_own_data_file
from engine.dataset.log_entries import Foreign
from engine.model.window import is_day

ROWS, FILES = "rows:", "files:"  # unlike the positions of flows these have no "/"
LARGEST = 1 << 62
UNDOING = {"RESTORE", "DELETE", "TRUNCATE", "WRITE", "CREATE", "REPLACE"}  # what takes rows away


@dataclass(frozen=True, slots=True)
class DaySummary:
    """A day as the log has it.

    rows        how many rows its files hold
    file_hash   a number that another set of files does not have
    foreign     whether another program wrote at least one of its files, as OPTIMIZE does
    missing     how many of its files are missing or cut off on the disk
    """

    rows: int = 0
    file_hash: int = 0
    foreign: bool = False
    missing: int = 0

    @classmethod
    def of(cls, files: Iterable[tuple[str, int]], missing: int = 0) -> Self:
        """Return the summary of files, given as their paths and rows."""
        found = list(files)
        hashes = sum(_hash(path) for path, _ in found) % LARGEST
        foreign = not all(is_own_data_file(path) for path, _ in found)
        return cls(sum(rows for _, rows in found), hashes, foreign, missing)

    def plus(self, more: Self) -> Self:
        """Return the summary of the files of both."""
        hashes = (self.file_hash + more.file_hash) % LARGEST
        foreign, missing = self.foreign or more.foreign, self.missing + more.missing
        return type(self)(self.rows + more.rows, hashes, foreign, missing)


def _hash(path: str) -> int:
    return int.from_bytes(blake2b(path.encode(), digest_size=8).digest(), "big") % LARGEST


EMPTY = DaySummary()


@dataclass(frozen=True, slots=True)
class Change:
    """A day that is not as this program left it.

    noted     the rows that the last commit to it noted; None if no commit noted any
    rows      the rows that it holds now
    missing   how many of its files are missing or cut off on the disk
    undone    whether the day has to be pulled again
    """

    day: date
    noted: int | None
    rows: int
    missing: int
    undone: bool

    def __str__(self) -> str:
        if self.missing:
            files = "1 file" if self.missing == 1 else f"{self.missing:,} files"
            return f"{self.day} lacks {files} on the disk"
        if self.noted is None:
            return f"{self.day} holds {self.rows:,} rows, and other ones when it was last written"
        if self.noted == self.rows:
            return f"{self.day} holds the {self.rows:,} rows of an older version"
        return (
            f"{self.day} holds {self.rows:,} rows and held {self.noted:,} when it was last written"
        )


def find_changes(
    days: Collection[date],
    summaries: Mapping[date, DaySummary],
    noted: Mapping[str, int],
    foreign_commits: Callable[[], Iterable[Foreign]],
) -> dict[date, Change]:
    """Return those of `days` that are not as this program left them, in order (P10).

    summaries        what the table holds; a day without one is empty
    noted            the positions of the table, with the figures of each day
    foreign_commits  reads the commits of other programs, if the figures do not suffice
    """
    found = (compare(day, summaries.get(day, EMPTY), noted) for day in sorted(days))
    changed = {each.day: each for each in found if each}
    undone = {each.day for each in changed.values() if each.undone}
    overwritten = _overwritten({*days} - undone, summaries, noted, foreign_commits)
    return _unnoted(days, summaries, noted, foreign_commits) | dict(
        sorted((changed | overwritten).items())
    )


def compare(day: date, summary: DaySummary, noted: Mapping[str, int]) -> Change | None:
    """Return how `day` differs from the figures that were noted of it; None if it does not (P10).

    A day is undone if it lost rows or files, or if its files are other files of this program, as
    after a RESTORE. A compacted day is unchanged. A day with more rows is reported only.
    """
    rows, file_hash = noted.get(f"{ROWS}{day}"), noted.get(f"{FILES}{day}")
    if rows is None or file_hash == summary.file_hash:
        if not summary.missing:
            return None
        return Change(day, rows, summary.rows, summary.missing, undone=True)
    undone = bool(summary.missing) or summary.rows < rows or not summary.foreign
    if summary.rows == rows and not undone:
        return None
    return Change(day, rows, summary.rows, summary.missing, undone)


def _overwritten(
    days: Collection[date],
    summaries: Mapping[date, DaySummary],
    noted: Mapping[str, int],
    foreign_commits: Callable[[], Iterable[Foreign]],
) -> dict[date, Change]:
    """Return those of `days` of which another program removed rows, and added as many (P10).

    Only the entries of the log show it. Rows that UPDATE and MERGE rewrite do not count.
    """
    holds = {day: summaries[day] for day in days if f"{ROWS}{day}" in noted and day in summaries}
    doubtful = {day: has for day, has in holds.items() if has.foreign}
    if not doubtful:
        return {}
    taken = {day for commit in _undoing(foreign_commits()) for day in commit.removed}
    return {
        day: Change(day, noted[f"{ROWS}{day}"], has.rows, has.missing, undone=True)
        for day, has in doubtful.items()
        if str(day) in taken
    }


def _unnoted(
    days: Collection[date],
    summaries: Mapping[date, DaySummary],
    noted: Mapping[str, int],
    foreign_commits: Callable[[], Iterable[Foreign]],
) -> dict[date, Change]:
    """Return the changed days that were written by a version of this program without figures."""
    names = {name[-10:] for name in noted if "/" in name}
    known = {*map(str, days)} | {name for name in names if is_day(name)}
    if not known - noted_days(noted):
        return {}
    found = {
        date.fromisoformat(day)
        for commit in _undoing(foreign_commits())
        for day in commit.days
        if is_day(day) and f"{ROWS}{day}" not in noted
    }
    holds = {day: summaries.get(day, EMPTY) for day in sorted(found)}
    return {
        day: Change(day, None, has.rows, has.missing, undone=True) for day, has in holds.items()
    }


def _undoing(commits: Iterable[Foreign]) -> Iterable[Foreign]:
    return (commit for commit in commits if commit.operation.split()[0] in UNDOING)


def figures_after(
    day: date, before: DaySummary, after: DaySummary, noted: Mapping[str, int], *, whole: bool
) -> dict[str, int]:
    """Return what a commit notes of a day that it wrote `whole`, or to which it added rows.

    Rows that the day had lost before still count: only a whole pull brings them back.
    """
    lost = None if whole else compare(day, before, noted)
    if lost is None or not lost.undone:
        return {f"{ROWS}{day}": after.rows, f"{FILES}{day}": after.file_hash}
    if lost.noted is None:
        return {}
    return {f"{ROWS}{day}": lost.noted + after.rows - before.rows}


def noted_days(positions: Mapping[str, int]) -> set[str]:
    """Return the days, in ISO form, of which figures are noted."""
    return {name.removeprefix(ROWS) for name in positions if name.startswith(ROWS)}
