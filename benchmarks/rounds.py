"""Run contenders in turn, A B C A B C, so that a machine that slows down slows all of them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import Failed, Spent
from benchmarks.result import Measurement, Result, as_text, warn


@dataclass(frozen=True, slots=True)
class Contender:
    """A command that runs in a new folder and returns its cost and the number of rows it wrote.

    `lines` is the number of lines it reads; a number of rows of None means not counted. If a
    `required` contender fails, the measurement ends; another one is left out from then on, and the
    result says why.
    """

    name: str
    lines: int
    run: Callable[[Path], tuple[Spent, int | None]]
    required: bool = False


@contextmanager
def new_folder(within: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that is deleted after the body; by default among temporary files."""
    with tempfile.TemporaryDirectory(
        prefix="benchmarks-", dir=within, ignore_cleanup_errors=True
    ) as place:
        yield Path(place)


def in_turn(
    result: Result, group: str, contenders: Sequence[Contender], runs: int, warm: int = 0
) -> None:
    """Add to `result` the cost of `runs` rounds of `contenders`, after `warm` that do not count."""
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
                add(measurement, spent)
    show(result, group)


def add(measurement: Measurement, spent: Spent) -> None:
    """Add the figures of one run."""
    taken = {"seconds": spent.wall, "cpu seconds": spent.cpu, "MiB": spent.mib}
    if spent.mib_together is not None:
        taken["MiB together"] = spent.mib_together
    for name, value in taken.items():
        measurement.figures.setdefault(name, []).append(round(value, 4))


def show(result: Result, group: str) -> None:
    """Print the figures of a group: medians with minimum and maximum."""
    rows = list(result.of(group))
    width = max(len(each.name) for each in rows)
    print(f"{result.what}: {group}")
    for each in rows:
        figures = [f"{as_text(values, name)} {name}" for name, values in each.figures.items()]
        if each.events and "seconds" in each.figures:
            rates = [each.events / seconds for seconds in each.figures["seconds"]]
            figures.insert(0, f"{as_text(rates)} rows/s")
        if each.events:
            figures.append(f"{each.events:,} events")
        if each.note:
            figures.append(each.note.splitlines()[0])
        print(f"  {each.name:{width}}  {'; '.join(figures)}", flush=True)
