"""`python -m benchmarks …`: measure, report, compare."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks import compare, control, memory, report, scale, stages, startup, throughput
from benchmarks.peers import NONE, PEERS, chosen
from benchmarks.process import Failed
from benchmarks.result import FOLDER, Result, warn
from benchmarks.server import CACHE
from benchmarks.settings import PARTS, SHAPES, Settings

MEASURING: dict[str, Callable[[Settings], Result]] = {
    "throughput": throughput.measure,
    "memory": memory.measure,
    "stages": stages.measure,
    "scale": scale.measure,
    "startup": startup.measure,
    "control": control.measure,
}
QUICK = {"events": 1_000, "memory": (1_000,), "batches": (3,), "history": 50, "runs": 1, "warm": 0}
PANDAS = (
    "pandas is installed here: Arrow imports it into every command, at a fifth of a second and "
    "50 MiB. The program does not need it: measure in an environment without, as `make bench` does."
)
WORDS = {
    "throughput": "the whole command beside DuckDB, Polars, orjson + pyarrow and the peers",
    "memory": "peak memory of one window, and of two at a time",
    "stages": "each pure stage alone, ns per event",
    "scale": "how cost grows with events, properties, rules, expressions, rejects, days, and more",
    "startup": "--help, check, an empty day, and what --help imports",
    "control": "ms per page of the control plane's runs, and requests per second",
    "all": "every one of these, then the report",
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    root = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures mixpanel-etl beside others, on this machine, without a network.",
        epilog="Example: python -m benchmarks throughput --shapes small --events 500000",
    )
    commands = root.add_subparsers(dest="what", required=True, metavar="COMMAND")
    for name, words in WORDS.items():
        command = commands.add_parser(name, help=words, description=words)
        _measuring(command)
    command = commands.add_parser("report", help="Markdown, charts and the goals, from results")
    command.add_argument("--results", type=Path, default=FOLDER, metavar="DIR")
    command = commands.add_parser("compare", help="what got slower from A to B, beyond noise")
    command.add_argument("before", type=Path, metavar="A", help="a result, or a folder of them")
    command.add_argument("after", type=Path, metavar="B")
    return root


def _measuring(command: argparse.ArgumentParser) -> None:
    default = Settings()
    add = command.add_argument
    add("--events", type=int, metavar="N", help=f"per window; default {default.events:,}")
    add("--memory", type=int, nargs="+", metavar="N", help="events of windows for `memory`")
    add("--batches", type=int, nargs="+", metavar="N", help="batches in tables for `scale`")
    add("--history", type=int, metavar="N", help=f"runs for `control`; default {default.history:,}")
    add("--runs", type=int, metavar="N", help=f"measured rounds; default {default.runs}")
    add("--shapes", nargs="+", choices=SHAPES, metavar="S", help=f"of {', '.join(SHAPES)}")
    add("--parts", nargs="+", choices=PARTS, metavar="P", help=f"of `scale`: {', '.join(PARTS)}")
    keys = ", ".join(peer.key for peer in PEERS)
    add("--peers", nargs="+", metavar="NAME", default=[NONE],
        help=f"of {keys}; all; none, the default. pip installs each apart")  # fmt: skip
    add("--results", type=Path, metavar="DIR", help="where results go; default benchmarks/results")
    add("--quick", action="store_true", help="tiny and once: only shows that it works")


def settings(options: argparse.Namespace) -> Settings:
    """Return the settings of the command line. Raise Failed for impossible ones."""
    values = dict(QUICK) if options.quick else {}
    for name in ("events", "memory", "batches", "history", "runs", "shapes", "parts", "peers"):
        if getattr(options, name) is not None:
            values[name] = getattr(options, name)
    for name in ("events", "memory", "batches", "history", "runs"):
        value = values.get(name, 1)
        if min(value if isinstance(value, Sequence) else (value,)) < 1:
            raise Failed(f"--{name} must be at least 1")
    chosen(options.peers)
    default = CACHE / "quick" if options.quick else FOLDER
    return Settings(**values, folder=options.results or default, quick=options.quick)  # type: ignore[arg-type]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = parser().parse_args(words)
    try:
        if options.what == "compare":
            compare.compare(options.before, options.after)
        elif options.what == "report":
            report.write(options.results)
        else:
            wanted = settings(options)
            if find_spec("pandas"):
                warn(PANDAS)
            for what in MEASURING if options.what == "all" else [options.what]:
                path = MEASURING[what](wanted).save(wanted.folder)
                print(f"{what}: written to {path}\n", flush=True)
            if options.what == "all":
                report.write(wanted.folder)
    except Failed as error:
        print(f"benchmarks: {error}\n{error.said}".rstrip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: stopped; complete results are stored", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
