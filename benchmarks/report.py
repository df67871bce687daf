"""Show results as Markdown and charts, and the goals with what was measured."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import chart, goals
from benchmarks.floors import DUCKDB
from benchmarks.result import (
    OURS,
    SERVER,
    Measurement,
    Result,
    about,
    as_text,
    load_all,
    middle,
    ratios,
)

ORDER = ("throughput", "memory", "stages", "scale", "startup", "control")
TITLES = {
    "throughput": "Throughput of the whole command",
    "memory": "Peak memory",
    "stages": "Each stage alone",
    "scale": "How cost grows",
    "startup": "The cost before the first event",
    "control": "A long history of runs",
}
HEADINGS = {
    "seconds": "seconds",
    "cpu seconds": "CPU s",
    "MiB": "MiB, largest process",
    "MiB together": "MiB, all processes",
}
# What the chart of a result shows: the figure, its unit and its format.
SHOWN = {
    "throughput": ("rows/s", "rows per second, more is better", ",.0f"),
    "memory": ("MiB together", "MiB of all processes, less is better", ",.0f"),
    "stages": ("ns an event", "ns per event, less is better", ",.0f"),
    "scale": ("seconds", "seconds (batches in ms), each group on its own scale", ",.2f"),
    "startup": ("ms", "milliseconds, less is better", ",.0f"),
    "control": ("seconds", "pages in ms, requests in seconds, each on its own scale", ",.1f"),
}
QUICK = "> Measured with --quick: it shows that the harness works, and the figures mean nothing.\n"
ALONE = ("stages", "scale", "startup", "control")  # results without other contenders
Table = Sequence[Sequence[str]]


def write(folder: Path) -> None:
    """Write `report.md` and the charts of the results in `folder`, and print the goals."""
    results = load_all(folder)
    shown = [results[what] for what in ORDER if what in results]
    for result in shown:
        (folder / f"{result.what}.svg").write_text(drawn(result), "utf-8")
    path = folder / "report.md"
    path.write_text(markdown(shown), "utf-8")
    print("\n".join(_aligned(goal_table(shown))))
    print("\n".join(about(shown)))
    written = ", ".join(f"{result.what}.svg" for result in shown)
    print(f"Written to {folder}: report.md, {written}")


def markdown(results: Sequence[Result]) -> str:
    """Return the report as Markdown."""
    parts = ["# Measured\n", *(f"{line}  " for line in about(results)), ""]
    parts += ["## Goals\n", _marked(goal_table(results))]
    if any(result.about["settings"].get("quick") for result in results):
        parts.insert(1, QUICK)
    for result in results:
        parts.append(f"## {TITLES[result.what]}\n")
        parts.append(f"![{TITLES[result.what]}]({result.what}.svg)\n")
        for group in result.groups:
            parts += [f"**{group}**\n", _marked(table(list(result.of(group))))]
    return "\n".join(parts)


def goal_table(results: Sequence[Result]) -> Table:
    """Return the rows of the goals, with what was measured."""
    by_name = {each.what: each for each in results if not each.about["settings"].get("quick")}
    return [
        ("goal", "wanted", "measured", ""),
        *(goal.row(by_name) for goal in goals.all_goals()),
    ]


def table(measurements: Sequence[Measurement]) -> Table:
    """Return the rows of a group: medians, with minimum and maximum in parentheses."""
    figures = list(dict.fromkeys(name for each in measurements for name in each.figures))
    floor = next((each for each in measurements if each.name == DUCKDB and each.figures), None)
    rated = any(each.events and "seconds" in each.figures for each in measurements)
    heads = ["", *(["events", "rows/s"] if rated else []), *(HEADINGS.get(n, n) for n in figures)]
    heads += [*(["of DuckDB's rows/s"] if floor else []), ""]
    rows = [heads]
    for each in measurements:
        row = [each.name]
        if rated:
            row += [f"{each.events:,}", as_text(_rates(each)) if _rates(each) else ""]
        row += [_cell(each, name) for name in figures]
        if floor:
            row.append(f"{as_text(ratios(each, floor), form=',.2f')} times" if each.figures else "")
        rows.append([*row, each.note])
    return rows


def drawn(result: Result) -> str:
    """Return the chart of a result, as SVG."""
    figure, unit, form = SHOWN[result.what]
    groups = []
    for group in result.groups:
        bars = [
            chart.Bar(
                f"{each.name}, {each.events:,} events" if result.what == "memory" else each.name,
                middle(values),
                min(values),
                max(values),
                each.name.startswith(OURS) or result.what in ALONE,
            )
            for each in result.of(group)
            if (values := _values(each, figure)) and not each.name.startswith(SERVER)
        ]
        if bars:
            groups.append((group, bars))
    return chart.bars(
        TITLES[result.what], unit, groups, form, apart=result.what in ("scale", "control")
    )


def _values(measurement: Measurement, figure: str) -> list[float]:
    """Return the values of a figure, measured or derived from the seconds."""
    figures = measurement.figures
    if figure == "rows/s":
        return _rates(measurement)
    if figure == "ms":
        return [1000 * value for value in figures.get("seconds", [])]
    return next((figures[name] for name in (figure, "MiB", "ms") if name in figures), [])


def _rates(measurement: Measurement) -> list[float]:
    seconds = measurement.figures.get("seconds", [])
    return [measurement.events / value for value in seconds] if measurement.events else []


def _cell(measurement: Measurement, name: str) -> str:
    values = measurement.figures.get(name, [])
    return as_text(values, name) if values else ""


def _marked(rows: Table) -> str:
    """Format rows as a Markdown table."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:], ""])


def _aligned(rows: Table) -> Iterable[str]:
    """Format rows as aligned columns, for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()
