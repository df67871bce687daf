"""Measure the peak memory of the largest process and of all processes, by window size."""

from benchmarks.program import Program
from benchmarks.result import OURS, Result
from benchmarks.rounds import Contender, in_turn
from benchmarks.server import serving
from benchmarks.settings import Settings
from benchmarks.throughput import SECOND

WINDOW, WINDOWS = "one window", "two windows at a time"


def measure(settings: Settings) -> Result:
    """Pull one window of each size, then two of the smallest in two processes."""
    result = settings.begin("memory")
    for events in settings.memory:
        with serving("small", events) as server:
            lines = server.fetch()
            program = Program(server.url, watch=True)
            in_turn(result, WINDOW, [Contender(OURS, lines, program.run, True)], settings.runs)
    if "days" not in settings.shapes:
        return result
    with serving("small", settings.memory[0]) as server:
        lines = sum(server.fetch(day, day) for day in (Program("").first, SECOND))
        options = ("--workers", "2", "--days-per-request", "1")
        program = Program(server.url, last=SECOND, options=options, watch=True)
        contender = Contender(f"{OURS}, 2 workers", lines, program.run, required=True)
        in_turn(result, WINDOWS, [contender], settings.runs)
    return result
