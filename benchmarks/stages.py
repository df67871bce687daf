"""Measure each pure stage alone, in ns per event, to name the stage that got slower."""

import json
import sys

from benchmarks.process import spend
from benchmarks.result import Measurement, Result
from benchmarks.rounds import new_folder, show
from benchmarks.server import serving
from benchmarks.settings import Settings
from benchmarks.shapes import TUTORIAL, mapped

FIGURE = "ns an event"
ORDER = (
    *("gunzip", "lines", "direct", "mapping", "columns", "check", "duplicates"),
    "writer with duplicates",
)
MOST = 200_000  # events, all in memory


def measure(settings: Settings) -> Result:
    """Measure the stages for each shape, in a process that does nothing else."""
    result = settings.begin("stages")
    for shape in settings.shapes:
        if shape == "days":
            continue
        with new_folder() as folder:
            with serving(shape, min(settings.events, MOST)) as server:
                lines = server.fetch(keep=folder / "day.ndjson.gz")
            more = {name: kind for name, kind in mapped(shape).items() if name not in TUTORIAL}
            argument = {
                "source": str(folder / "day.ndjson.gz"),
                "folder": str(folder),
                "more": more,
                "repeats": settings.runs,
                "warm": settings.warm,
            }
            command = [sys.executable, "-m", "benchmarks.stage_work", json.dumps(argument)]
            found = json.loads(spend(command).said.splitlines()[-1])
        for way, measured in found.items():
            group = f"{shape}, {way}"
            result.measurements += [
                Measurement(group, name, lines, {FIGURE: measured["stages"][name]}, note)
                for name, note in ((each, measured["notes"].get(each, "")) for each in ORDER)
                if name in measured["stages"]
            ]
            show(result, group)
    return result
