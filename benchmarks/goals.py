"""The goals of the program, and whether stored results reach them. Measures nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks import control, memory, scale, startup
from benchmarks.floors import DUCKDB
from benchmarks.result import OURS, Measurement, Result, as_text, middle, ratios

LARGE = 5_000_000  # events
HISTORY = 100_000  # runs
Results = Mapping[str, Result]
Measured = tuple[bool, str]  # whether the goal is reached; what was measured


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table. `evaluate` returns None if the goal was not measured."""

    what: str
    wanted: str
    evaluate: Callable[[Results], Measured | None]

    def row(self, results: Results) -> tuple[str, str, str, str]:
        """Return what, wanted, measured and the verdict, as texts."""
        found = self.evaluate(results)
        if found is None:
            return self.what, self.wanted, "-", "not measured"
        reached, measured = found
        return self.what, self.wanted, measured, "reached" if reached else "NOT reached"


def all_goals() -> list[Goal]:
    """Return all goals, in the order of the table."""
    against = "against DuckDB's COPY of the same gzip bytes with explicit columns"
    return [
        _faster(f"small, one window, everything on, {against}", 1.0, "small", OURS, DUCKDB),
        _faster('wide, the same, `unmapped = "drop"`', 1.0, "wide", f"{OURS}, drop", DUCKDB),
        _faster('wide, the same, `unmapped = "keep"`', 0.6, "wide", f"{OURS}, keep", DUCKDB),
        _faster("typed, the same, DuckDB with all 36 columns", 0.8, "typed", OURS, DUCKDB),
        _faster("two days, two workers, against DuckDB on the two files with two threads",
                1.0, "days", OURS, DUCKDB),
        *(_faster(f"{shape}, against `dlt` with Pydantic into Parquet", 15, f"{shape} beside dlt",
                  OURS, "dlt") for shape in ("small", "wide")),
        Goal("peak memory, all processes, one window of 5 million events", "at most 300 MiB",
             _memory),
        Goal("half of the lines rejected, against none", "at most 3 times the time", _rejects),
        Goal("one more day, planned and committed, in a table of 10,000 batches",
             "at most 150 ms", _batches),
        Goal("any page of 100,000 runs from the control plane", "at most 50 ms", _pages),
        Goal("`mixpanel-etl --help`", "at most 200 ms", _help),
        Goal("`mixpanel-etl --help` imports", "no pyarrow, no deltalake", _imports),
    ]  # fmt: skip


def _faster(what: str, wanted: float, group: str, ours: str, other: str) -> Goal:
    """Return a goal: at least `wanted` times the rows/s of another, compared run by run."""

    def evaluate(results: Results) -> Measured | None:
        result = results.get("throughput")
        mine, theirs = (result and result.find(group, name) for name in (ours, other))
        if not mine or not theirs:
            return None
        times = ratios(mine, theirs)
        measured = f"{as_text(times, form=',.2f')} times, {mine.events:,} lines"
        return middle(times) >= wanted, measured

    return Goal(what, f"at least {wanted:.1f} times its rows/s", evaluate)


def _memory(results: Results) -> Measured | None:
    found = [each for each in _of(results, "memory", memory.WINDOW) if each.events >= LARGE]
    if not found:
        return None
    figure = "MiB together" if "MiB together" in found[0].figures else "MiB"
    values = found[0].figures[figure]
    return max(values) <= 300, f"{as_text(values)} MiB, {found[0].events:,} lines"


def _rejects(results: Results) -> Measured | None:
    found = {each.name: each for each in _of(results, "scale", scale.REJECTS)}
    if not {"0 %", "50 %"} <= found.keys():
        return None
    times = ratios(found["0 %"], found["50 %"])
    return middle(times) <= 3, f"{as_text(times, form=',.2f')} times"


def _batches(results: Results) -> Measured | None:
    found = {each.name: each for each in _of(results, "scale", scale.BATCHES)}
    if "10,000" not in found:
        return None
    values = found["10,000"].figures["ms"]
    return middle(values) <= 150, f"{as_text(values)} ms"


def _pages(results: Results) -> Measured | None:
    found = _of(results, "control", control.PAGES)
    if not found or results["control"].about["settings"].get("history", 0) < HISTORY:
        return None
    slowest = max(found, key=lambda each: middle(each.figures["ms"]))
    values = slowest.figures["ms"]
    return middle(values) <= 50, f"{as_text(values, 'ms')} ms: {slowest.name}"


def _help(results: Results) -> Measured | None:
    result = results.get("startup")
    found = result and result.find(startup.GROUP, startup.HELP)
    if not found:
        return None
    values = [1000 * value for value in found.figures["seconds"]]
    return middle(values) <= 200, f"{as_text(values)} ms"


def _imports(results: Results) -> Measured | None:
    result = results.get("startup")
    found = result and result.find(startup.IMPORTS, startup.HELP)
    if not found:
        return None
    return "pyarrow" not in found.note and "deltalake" not in found.note, found.note


def _of(results: Results, what: str, group: str) -> list[Measurement]:
    result = results.get(what)
    return [each for each in result.of(group) if each.figures] if result else []
