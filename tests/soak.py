"""A daemon for many minutes, at a clock that runs faster: what it holds must not grow.

    python -m tests.soak MINUTES

Prints, twice a minute, the daemon's own memory, open files and threads, and the largest run's
memory; at the end whether the table is exact. It is no test of the suite: it takes too long.
"""

import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from engine.sandbox import Sandbox
from tests.support.daemons import (
    BACKFILL,
    FIRST,
    SPEC,
    Trial,
    alive_below,
    clock_of,
    expected,
    held_keys,
)

SPEED = 3600  # an hour in a second
FLOWS = ("events", "second", "third")


def status(pid: int) -> dict[str, int]:
    """Memory in KiB, open files and threads of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)
             if name in ("VmRSS", "Threads")}  # fmt: skip
    return found | {"files": len(list(Path(f"/proc/{pid}/fd").iterdir()))}


def main(minutes: float) -> int:
    """Run it; the exit status is 1 if a table is not exact."""
    with tempfile.TemporaryDirectory() as folder, Sandbox(SPEC) as sandbox:
        clock = clock_of(SPEED)
        sandbox.project.now = clock.now
        tried = Trial(Path(folder), sandbox, clock)
        tried.write(*FLOWS, more=BACKFILL)
        wrong = 0
        with tried.daemon() as process:
            until, largest = time.monotonic() + 60 * minutes, 0
            shown = time.monotonic()
            while time.monotonic() < until:
                for run in alive_below(process):
                    try:
                        largest = max(largest, status(run)["VmRSS"])
                    except (OSError, KeyError):
                        continue  # it has just ended
                if time.monotonic() > shown:
                    shown += 30
                    now = datetime.fromtimestamp(clock.now() / 1000, UTC)
                    print(f"{now:%F %R}", status(process.pid), "largest run", largest, flush=True)
                    largest = 0
                time.sleep(0.05)
            process.terminate()
            print("ended with", process.wait(20))
        for name in FLOWS:
            reached = tried.reached(name)
            last = datetime.fromtimestamp(reached / 1000, UTC).date() + timedelta(days=1)
            have = held_keys(tried.table(name), FIRST)
            exact = have == expected(SPEC, FIRST, last, reached)
            wrong += not exact
            print(name, "until", reached, "rows", have.total(), "exact" if exact else "NOT EXACT")
        days = (date.fromtimestamp(reached / 1000) - FIRST).days
        print(days, "days,", len(tried.lines("run")), "runs,", len(sandbox.requests), "requests")
        print("other lines:", {line["event"] for line in tried.lines()} - {"run"})
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
