"""Store measurements as JSON, with the machine and the versions, for reports and comparisons.

A result names the processor, the versions and the commit, and nothing else of a machine.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT, Failed

FOLDER = Path(__file__).parent / "results"
PACKAGES = (
    *("mixpanel-etl", "pyarrow", "deltalake", "orjson", "isal", "numpy", "jsonschema", "httpx"),
    *("duckdb", "polars", "pandas"),
)
MEASURED = ("engine", "mappings", "schemas")  # folders that a figure depends on
OURS = "mixpanel-etl"
SERVER = "the server alone"
FORMS = {
    "seconds": ",.2f",
    "cpu seconds": ",.2f",
    "ms": ",.1f",
    "ms to plan": ",.1f",
    "ms to commit": ",.1f",
    "rows/s": ",.0f",
}  # other figures: whole numbers

Figures = dict[str, list[float]]


@dataclass(slots=True)
class Measurement:
    """The figures of one contender in one group: one value per run, in the order of the runs.

    Less is better for all figures. Contenders of one group run in turn, so that the first values of
    two of them were measured one after the other. `events` is the number of lines that were read;
    `note` is a remark.
    """

    group: str
    name: str
    events: int
    figures: Figures = field(default_factory=dict)
    note: str = ""


@dataclass(slots=True)
class Result:
    """All measurements of one subcommand."""

    what: str
    about: dict[str, Any]
    measurements: list[Measurement] = field(default_factory=list)

    def save(self, folder: Path) -> Path:
        """Write the result to `folder` as `<what>.json`."""
        self.about["load after"] = _load()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.what}.json"
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        path.write_text(f"{text}\n", "utf-8")
        return path

    def find(self, group: str, name: str = "") -> Measurement | None:
        """Return the measurement of `group` with figures whose name starts with `name`, or None."""
        for each in self.measurements:
            if each.group == group and each.name.startswith(name) and each.figures:
                return each
        return None

    @property
    def groups(self) -> list[str]:
        """Return the names of the groups, in order."""
        return list(dict.fromkeys(each.group for each in self.measurements))

    def of(self, group: str) -> Iterator[Measurement]:
        """Yield the measurements of a group, in order."""
        return (each for each in self.measurements if each.group == group)


def load(path: Path) -> Result:
    """Read a result from a file. Raise Failed if the file has none."""
    try:
        document = json.loads(path.read_text("utf-8"))
        measurements = [Measurement(**each) for each in document["measurements"]]
        return Result(document["what"], document["about"], measurements)
    except OSError as error:
        raise Failed(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise Failed(f"{path}: is no result of these benchmarks ({error})") from error


def load_all(path: Path) -> dict[str, Result]:
    """Read the results of a folder or of one file, by subcommand. Raises Failed."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise Failed(f"{path}: holds no results; measure first, as in `python -m benchmarks all`")
    return {result.what: result for result in map(load, files)}


def begin(what: str, **settings: Any) -> Result:
    """Return an empty result with the machine, the versions and the settings."""
    about = {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "settings": settings,
        "load before": _load(),
    }
    return Result(what, about)


def machine() -> dict[str, Any]:
    """Return processor, cores, memory and system, without the name of the host or a person."""
    processor = platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text("utf-8").splitlines() if info.exists() else ():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory GiB": round(memory / 2**30),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that do the work."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the measured commit, and whether the files differ from it."""

    def git(*words: str) -> str:
        command = ["git", *words, "--", *MEASURED] if words[0] == "status" else ["git", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        found = git("rev-parse", "--short", "HEAD")
        changed = found and git("status", "--porcelain")
    except OSError:  # git is not installed
        return "unknown"
    return f"{found or 'unknown'}{' with changes' if changed else ''}"


def _load() -> float:
    """Return the load of the last minute; above 1, other programs were running too."""
    return round(os.getloadavg()[0], 1)


# Several runs of the same ------------------------------------------------------------------


def middle(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def spread(values: list[float]) -> float:
    """Return the difference of maximum and minimum."""
    return max(values) - min(values)


def ratios(ours: Measurement, other: Measurement, figure: str = "seconds") -> list[float]:
    """Return the speed of ours as a multiple of the other's, for each run; both ran in turn."""
    pairs = zip(ours.figures[figure], other.figures[figure], strict=False)
    return [theirs / mine for mine, theirs in pairs]


def as_text(values: list[float], figure: str = "", form: str = "") -> str:
    """Format the median with minimum and maximum; `form` defaults to the format of `figure`."""
    form = form or FORMS.get(figure, ",.0f")
    text = format(middle(values), form)
    if len(values) > 1:
        text += f" ({format(min(values), form)} to {format(max(values), form)})"
    return text


def about(results: Sequence[Result]) -> Iterator[str]:
    """Describe where and when each result was measured; results of one machine share a line."""
    for where in dict.fromkeys(place(result.about) for result in results):
        yield where
        for result in results:
            if place(result.about) == where:
                yield f"{result.what}: {moment(result.about)}"


def place(about: dict[str, Any]) -> str:
    """Describe the machine and the versions of a result."""
    where = about["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{where['processor']}, {where['cores']} cores, {where['memory GiB']} GiB, "
        f"{where['system']}; {versions}; commit {about['commit']}"
    )


def moment(about: dict[str, Any]) -> str:
    """Describe when a result was measured and how busy the machine was."""
    after = about.get("load after", "?")
    return f"{about['measured']}, load {about['load before']} before and {after} after"


def warn(text: str) -> None:
    """Print to stderr what failed without ending the measurement."""
    print(f"benchmarks: {text}", file=sys.stderr, flush=True)
