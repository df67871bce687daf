"""List what got slower or larger between two results beyond the noise of both."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.floors import DUCKDB
from benchmarks.process import Failed
from benchmarks.result import OURS, Result, about, as_text, load_all, middle, spread

LEAST = 0.02  # of the median: smaller differences are ignored, however certain
FEWEST = 3  # runs that show how large the noise is
BESIDE = "time of DuckDB's"  # our time as a share of DuckDB's: comparable between machines
SPACE = ("MiB", "MiB together", BESIDE)

Key = tuple[str, str, str, int, str]  # what, group, name, events, figure


@dataclass(frozen=True, slots=True)
class Change:
    """One figure before and after; less is better."""

    key: Key
    before: list[float]
    after: list[float]

    @property
    def percent(self) -> float:
        """Return by which share the figure grew."""
        return 100 * (middle(self.after) / (middle(self.before) or 1) - 1)

    @property
    def verdict(self) -> str:
        """Return `slower`, `faster`, `same`, or `unsure` if there are too few runs.

        A figure differs if the medians are further apart than the runs of either result.
        """
        if min(len(self.before), len(self.after)) < FEWEST:
            return "unsure"
        apart = middle(self.after) - middle(self.before)
        noise = max(spread(self.before), spread(self.after), LEAST * middle(self.before))
        if abs(apart) <= noise:
            return "same"
        return "slower" if apart > 0 else "faster"


def compare(first: Path, second: Path) -> list[Change]:
    """Print and return the changes from the results at `first` to those at `second`."""
    before, after = load_all(first), load_all(second)
    shared = [what for what in before if what in after]
    if not shared:
        raise Failed(f"{first} and {second} measure different things: nothing can be compared")
    moved = any(before[w].about["machine"] != after[w].about["machine"] for w in shared)
    for name, results in (("A", before), ("B", after)):
        print(f"{name}: ", "\n    ".join(about([results[what] for what in shared])))
    if moved:
        print("The machines differ: only ratios and memory are compared.")
    changes: list[Change] = []
    alone = 0
    for what in shared:
        old, new = dict(figures(before[what])), dict(figures(after[what]))
        alone += len(old.keys() ^ new.keys())
        changes += [
            Change(key, old[key], new[key])
            for key in old
            if key in new and (not moved or key[-1] in SPACE)
        ]
    show(changes, alone)
    return changes


def figures(result: Result) -> Iterator[tuple[Key, list[float]]]:
    """Return all figures of a result, and our times as a share of DuckDB's if both ran in turn."""
    for each in result.measurements:
        key = (result.what, each.group, each.name, each.events)
        for name, values in each.figures.items():
            yield (*key, name), values
        floor = result.find(each.group, DUCKDB)
        if floor and each.name.startswith(OURS) and each.figures:
            pairs = zip(each.figures["seconds"], floor.figures["seconds"], strict=False)
            yield (*key, BESIDE), [mine / theirs for mine, theirs in pairs]


def show(changes: list[Change], alone: int) -> None:
    """Print what got slower, the worst first, then what got faster; count the others."""
    for verdict in ("slower", "faster"):
        found = [each for each in changes if each.verdict == verdict]
        for each in sorted(found, key=lambda change: -abs(change.percent)):
            what, group, name, _, figure = each.key
            form = ",.3f" if middle(each.before) < 10 else ",.0f"
            print(
                f"{verdict}  {each.percent:+6.1f} %  {what}, {group}, {name}: {figure} "
                f"{as_text(each.before, form=form)} -> {as_text(each.after, form=form)}"
            )
    counts = {v: sum(c.verdict == v for c in changes) for v in ("slower", "faster", "same")}
    unsure = sum(each.verdict == "unsure" for each in changes)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), end="")
    print(f", {unsure} with fewer than {FEWEST} runs, {alone} in one result only.")
