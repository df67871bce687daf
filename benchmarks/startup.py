"""Measure the cost before the first event: `--help`, `check`, an empty day, and imports."""

import re
import sys
from pathlib import Path

from benchmarks.process import ROOT, Spent, spend
from benchmarks.program import ENVIRONMENT, Program, command
from benchmarks.result import Measurement, Result
from benchmarks.rounds import Contender, in_turn
from benchmarks.server import serving
from benchmarks.settings import Settings

OFTEN = 3
GROUP, IMPORTS = "before the first event", "imports"
PYTHON, HELP, CHECK, EMPTY = "python alone", "--help", "check", "an empty day"
HEAVY = (
    *("pyarrow", "deltalake", "numpy", "pandas", "duckdb", "httpx", "jsonschema", "orjson"),
    *("isal", "starlette", "uvicorn", "rich", "sqlite3", "asyncio", "multiprocessing"),
)
LIST = re.compile(r"import time: +(\d+) \| +\d+ \|( *)([\w.]+)")  # a line that -X importtime prints


def measure(settings: Settings) -> Result:
    """Measure each command in turn, in many rounds since they are short; then imports."""
    result = settings.begin("startup")
    with serving("small", 0) as server:
        program = Program(server.url)

        def check(folder: Path) -> tuple[Spent, None]:
            words = ["check", "--config", str(program.configured(folder))]
            return spend(command(*words), ENVIRONMENT), None

        contenders = [
            Contender(PYTHON, 0, lambda _: (spend([sys.executable, "-c", "pass"]), None)),
            Contender(HELP, 0, lambda _: (spend(command("--help")), None), required=True),
            Contender(CHECK, 0, check, required=True),
            Contender(EMPTY, 0, program.run, required=True),
        ]
        in_turn(
            result,
            GROUP,
            contenders,
            settings.runs * (1 if settings.quick else OFTEN),
            settings.warm,
        )
    _imports(result)
    return result


def _imports(result: Result) -> None:
    """Measure the modules that `--help` imports: none of them should read or write data."""
    script = "import sys, runpy; sys.argv = ['engine', '--help']\n"
    script += "try: runpy.run_module('engine', run_name='__main__')\n"
    script += "except SystemExit: print(); print('loaded', *sys.modules)"
    loaded = spend([sys.executable, "-c", script], folder=ROOT).said.splitlines()[-1].split()[1:]
    heavy = [name for name in HEAVY if name in loaded]
    note = f"imports {', '.join(heavy)}" if heavy else "imports no heavy module"
    result.measurements.append(Measurement(IMPORTS, HELP, 0, {"modules": [len(loaded)]}, note))
    print(f"startup: {HELP} {note}; {len(loaded)} modules in all")
    print(f"  looked for: {', '.join(HEAVY)}")
