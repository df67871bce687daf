"""What other programs changed of the days that this program wrote. Pure: no table, no file.

Each commit notes two figures of each day that it touches in the table itself, as versions of app
transactions. So they survive checkpoints and the clean-up of the log, and a RESTORE does not take
them back. To find changes, what the log says of a day now is compared with them.

    rows:<day>      how many rows the day held
    files:<day>     the `file_hash` of the day
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
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
    gone        how many of its files are missing or cut off on the disk
    """

    rows: int = 0
    file_hash: int = 0
    foreign: bool = False
    gone: int = 0

    @classmethod
    def of(cls, files: Iterable[tuple[str, int]], gone: int = 0) -> Self:
        """Return the summary of files, given as their paths and rows."""
        found = list(files)
        hashes = sum(_hash(path) for path, _ in found) % LARGEST
        foreign = not all(is_own_data_file(path) for path, _ in found)
        return cls(sum(rows for _, rows in found), hashes, foreign, gone)

    def plus(self, more: Self) -> Self:
        """Return the summary of the files of both."""
        hashes = (self.file_hash + more.file_hash) % LARGEST
        foreign, gone = self.foreign or more.foreign, self.gone + more.gone
        rows = self.rows + more.rows
        return replace(self, rows=rows, file_hash=hashes, foreign=foreign, gone=gone)


def _hash(path: str) -> int:
    """Return a number for one file; their sum, modulo LARGEST, is the `file_hash` of a day."""
    return int.from_bytes(blake2b(path.encode(), digest_size=8).digest(), "big") % LARGEST


EMPTY = DaySummary()


@dataclass(frozen=True, slots=True)
class Change:
    """A day that is not as this program left it.

    had      the rows that were noted of it; None if no commit noted any
    rows     the rows that it holds now
    gone     how many of its files are missing or cut off on the disk
    undone   whether the day has to be pulled again
    """

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


def find_changes(
    days: Collection[date],
    summaries: Mapping[date, DaySummary],
    noted: Mapping[str, int],
    foreign_commits: Callable[[], Iterable[Foreign]],
) -> dict[date, Change]:
    """Return those of `days` that are not as this program left them, in order (P10).

    summaries        what the table holds; a day without one is empty
    noted            the positions of the table, with the figures of each day
    foreign_commits  reads the commits of other programs; called only if the figures do not suffice
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

    It is undone where it has lost rows or files, and where it has other files than it had, all of
    them this program's: only a RESTORE does that. A day that was only compacted did not change. A
    day with more rows, some of them another program's, is reported and not undone.
    """
    had, file_hash = noted.get(f"{ROWS}{day}"), noted.get(f"{FILES}{day}")
    if had is None or file_hash == summary.file_hash:
        if not summary.gone:
            return None
        return Change(day, had, summary.rows, summary.gone, undone=True)
    undone = bool(summary.gone) or summary.rows < had or not summary.foreign
    if summary.rows == had and not undone:
        return None
    return Change(day, had, summary.rows, summary.gone, undone)


def _overwritten(
    days: Collection[date],
    summaries: Mapping[date, DaySummary],
    noted: Mapping[str, int],
    foreign_commits: Callable[[], Iterable[Foreign]],
) -> dict[date, Change]:
    """Return those of `days` of which another program took rows, and added as many or more (P10).

    The number of rows does not show it; the entries of the log do, as long as they are there. Rows
    that UPDATE and MERGE rewrite do not count.
    """
    doubtful = [
        day for day in days if f"{ROWS}{day}" in noted and summaries.get(day, EMPTY).foreign
    ]
    if not doubtful:
        return {}
    taken = {day for commit in _undoing(foreign_commits()) for day in commit.taken}
    return {
        day: Change(day, noted.get(f"{ROWS}{day}"), has.rows, has.gone, undone=True)
        for day in doubtful
        if str(day) in taken
        for has in (summaries.get(day, EMPTY),)
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
    return {day: Change(day, None, has.rows, has.gone, undone=True) for day, has in holds.items()}


def _undoing(commits: Iterable[Foreign]) -> Iterable[Foreign]:
    return (commit for commit in commits if commit.operation.split()[0] in UNDOING)


def figures_after(
    day: date, before: DaySummary, after: DaySummary, noted: Mapping[str, int], *, whole: bool
) -> dict[str, int]:
    """Return what a commit notes of a day that it wrote `whole`, or to which it added rows.

    What was lost before stays lost when rows are added: only a whole pull mends it.
    """
    lost = None if whole else compare(day, before, noted)
    if lost is None or not lost.undone:
        return {f"{ROWS}{day}": after.rows, f"{FILES}{day}": after.file_hash}
    if lost.had is None:
        return {}
    return {f"{ROWS}{day}": lost.had + after.rows - before.rows}


def noted_days(positions: Mapping[str, int]) -> set[str]:
    """Return the days, in ISO form, of which figures are noted."""
    return {name.removeprefix(ROWS) for name in positions if name.startswith(ROWS)}
