"""Contenders run in turn, A B C A B C, so that a machine that slows down slows all of them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import Failed, Spent
from benchmarks.result import Measurement, Result, told, warn


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that runs in a new folder; it tells what it took and how many rows it made.

    `lines` come to it; None stands for rows that nobody counted. Of `required` ones a failure ends
    the measuring; any other is left out from then on, and the result says why.
    """

    name: str
    lines: int
    run: Callable[[Path], tuple[Spent, int | None]]
    required: bool = False


@contextmanager
def new_folder(within: Path | None = None) -> Iterator[Path]:
    """A folder that is gone with the body; by default where temporary files are."""
    with tempfile.TemporaryDirectory(
        prefix="benchmarks-", dir=within, ignore_cleanup_errors=True
    ) as place:
        yield Path(place)


def in_turn(
    result: Result, group: str, contenders: Sequence[Contender], runs: int, warm: int = 0
) -> None:
    """Add to `result` what `runs` rounds of `contenders` took, after `warm` that do not count."""
    measured = {each.name: Measurement(group, each.name, each.lines) for each in contenders}
    result.measurements += measured.values()
    left = list(contenders)
    for number in range(warm + runs):
        for each in list(left):
            measurement = measured[each.name]
            try:
                with new_folder() as folder:
                    spent, rows = each.run(folder)
            except Failed as error:
                if each.required:
                    raise
                left.remove(each)
                measurement.figures = {}
                measurement.note = f"failed: {error}"
                warn(f"{group}: {each.name} is left out: {error}\n{error.said}")
                continue
            if rows is not None and rows != each.lines:
                measurement.note = f"made {rows:,} rows of {each.lines:,} lines"
            if number >= warm:
                keep(measurement, spent)
    show(result, group)


def keep(measurement: Measurement, spent: Spent) -> None:
    """Add one run's figures."""
    taken = {"seconds": spent.wall, "cpu seconds": spent.cpu, "MiB": spent.mib}
    if spent.mib_together is not None:
        taken["MiB together"] = spent.mib_together
    for name, value in taken.items():
        measurement.figures.setdefault(name, []).append(round(value, 4))


def show(result: Result, group: str) -> None:
    """Print a group's figures, as medians and what lies around them."""
    rows = list(result.of(group))
    width = max(len(each.name) for each in rows)
    print(f"{result.what}: {group}")
    for each in rows:
        figures = [f"{told(values, name)} {name}" for name, values in each.figures.items()]
        if each.events and "seconds" in each.figures:
            rates = [each.events / seconds for seconds in each.figures["seconds"]]
            figures.insert(0, f"{told(rates)} rows/s")
        if each.events:
            figures.append(f"{each.events:,} events")
        if each.note:
            figures.append(each.note.splitlines()[0])
        print(f"  {each.name:{width}}  {'; '.join(figures)}", flush=True)
