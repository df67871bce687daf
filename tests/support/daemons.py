"""A daemon by a clock that runs faster: a process of its own, and what its table should hold."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.daemon.signals import DRAIN
from engine.model.clock import Clock
from engine.model.run_record import RunRecord
from engine.model.window import each_day
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox, Spec
from engine.sandbox.events import truth
from tests.support.commands import children

ROOT = Path(__file__).parents[2]
START = 1_704_880_800_000  # 2024-01-10, 10:00 UTC
SPEC = Spec(
    shape="small", events_per_day=400, late_percent=10, reject_percent=1, duplicate_percent=3
)
FIRST = date(2024, 1, 4)
BACKFILL = 'backfill_from = "2024-01-04"\npartial_ingestion_percent = 60'

FLOW = """
[flows.{name}]
connection = "shop"
dataset = "{dataset}"
schedule = {{ frequency = "minute", interval = 15, start_time = {start} }}
{more}
"""


def clock_of(speed: float, first: int = START) -> Clock:
    """A clock that shows `first` now and runs `speed` times as fast as the machine's."""
    return Clock(time.time_ns() // 1_000_000, first, speed)


@dataclass
class Trial:
    """A folder with a configuration and what a daemon makes of it."""

    folder: Path
    sandbox: Sandbox
    clock: Clock
    timezone: str = "UTC"
    per_hour: int = 1_000_000
    drain: float = DRAIN  # seconds in which a window may end after a stop signal

    @property
    def config(self) -> Path:
        return self.folder / "flows.toml"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def table(self, name: str = "events") -> Path:
        return self.folder / "data" / name

    def write(self, *names: str, more: str = "", **others: str) -> None:
        """Write a configuration with these flows."""
        text = (
            f'home = "{self.home}"\n[connections.shop]\nhost = "{self.sandbox.url}"\n'
            f'username = {{ env = "TRIAL_USERNAME" }}\npassword = {{ env = "TRIAL_PASSWORD" }}\n'
            f'project_id = {PROJECT_ID}\ntimezone = "{self.timezone}"\n'
        )
        for name in names or ("events",):
            text += FLOW.format(
                name=name,
                dataset=self.table(name),
                start=self.clock.first // 1000 - 2 * 86_400,
                more=others.get(name, more),
            )
        self.config.write_text(text)

    def start(self) -> subprocess.Popen[bytes]:
        """Start a daemon; what it says goes to the end of `log`."""
        given = json.dumps(
            {
                "config": str(self.config),
                "clock": asdict(self.clock),
                "per_hour": self.per_hour,
                "drain": self.drain,
            }
        )
        environment = os.environ | {
            "TRIAL_USERNAME": USERNAME, "TRIAL_PASSWORD": PASSWORD, "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        with self.log.open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.support.daemons", given],
                env=environment, cwd=self.folder, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip

    @contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        """A daemon that is gone at the end, with everything that it started."""
        process = self.start()
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the log entries so far."""
        if not self.log.exists():
            return []
        said = [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]
        return [line for line in said if event is None or line["event"] == event]

    def reached(self, name: str = "events") -> int:
        """M, as the table has it; 0 before the first arrival window."""
        return self._position(name, "arrival")

    def filled(self, first: date, name: str = "events") -> bool:
        """Whether every day from `backfill_from` on is there: the newest come first."""
        return self._position(name, str(first)) > 0

    def runs(self, flow: str = "events") -> list[RunRecord]:
        """The history of a flow, the newest first."""
        with Catalog(self.home) as catalog:
            return list(catalog.history(flow, limit=1000))

    def _position(self, name: str, what: str) -> int:
        return position(self.table(name), f"{name}/{what}")


def trial(folder: Path, sandbox: Sandbox, speed: float, first: int = START, **more: Any) -> Trial:
    """A trial from `first` on, at `speed`, whose sandbox goes by the same clock."""
    clock = clock_of(speed, first)
    sandbox.project.now = clock.now
    return Trial(folder, sandbox, clock, **more)


def position(table: Path, app: str) -> int:
    """The position of a flow in its table; 0 before the first. Reads the log once a commit."""
    newest = max(table.glob("_delta_log/*.json"), default=None)
    return _position(table, app, newest.name, newest.stat().st_mtime_ns) if newest else 0


@cache
def _position(table: Path, app: str, _newest: str, _written: int) -> int:
    return DeltaTable(table).transaction_version(app) or 0


def alive_below(process: subprocess.Popen[bytes]) -> list[int]:
    """The runs of a daemon: processes that pull."""
    return [pid for pid, command in children(process.pid) if "spawn_main" in command]


def until(true: Callable[[], object], seconds: float = 40) -> None:
    """Look again and again until `true`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)


def expected(spec: Spec, first: date, last: date, before: int) -> Counter[str]:
    """The events that were processed before that moment, each once, by their insert ids' keys."""
    return Counter(
        key_of(event["event"], event["properties"])
        for day in each_day(first, last)
        for event in truth(spec, day, visible_at=before - 1).events
    )


def key_of(event: str, properties: dict[str, Any]) -> str:
    """Return the key of an event, which no other event has."""
    named = [properties.get(name) for name in ("distinct_id", "time", "$insert_id")]
    if named[2] is None:  # never merged: its moment tells it apart
        named.append(properties["mp_processing_time_ms"])
    return json.dumps([event, *(None if name is None else str(name) for name in named)])


def held_keys(table: Path, first: date) -> Counter[str]:
    """The events of a table from a day on, by their keys: of days before, it owes nothing."""
    rows = DeltaTable(table).to_pyarrow_table().to_pylist()
    return Counter(
        key_of(
            row["event_name"],
            {
                "distinct_id": row["distinct_id"],
                "time": row["time"],
                "$insert_id": row["insert_id"],
                "mp_processing_time_ms": row["mp_processing_time_ms"],
            },
        )
        for row in (each["_extconndev"] for each in rows if each["event_date"] >= first)
    )


def is_exact(tried: Trial, spec: Spec, first: date = FIRST, name: str = "events") -> bool:
    """Whether the table is exactly the events that were processed before M, each once."""
    reached = tried.reached(name)
    last = datetime.fromtimestamp(reached / 1000, UTC).date() + timedelta(days=1)
    have, want = held_keys(tried.table(name), first), expected(spec, first, last, reached)
    for what, rest in (("missing", want - have), ("too much", have - want)):
        if rest:
            print(what, len(rest), list(rest)[:3])  # noqa: T201 - shown where the test fails
    return have == want


def stop(process: "subprocess.Popen[bytes]", sign: signal.Signals = signal.SIGTERM) -> float:
    """Ask a daemon to end; the seconds that it took."""
    began = time.monotonic()
    process.send_signal(sign)
    assert process.wait(20) == 0
    return time.monotonic() - began


def is_pulling(tried: Trial) -> bool:
    """Whether a window is on its way, and its process hears of a stop."""
    return any(path.is_dir() for path in tried.table().glob("_staging/*"))


def main() -> int:
    """Run a daemon as the first argument says."""
    from engine.daemon.daemon import Daemon
    from engine.log import configure
    from engine.mixpanel.timeouts import Timeouts
    from engine.model.retry import RateLimit, RetryPolicy
    from engine.sync.options import Options

    given = json.loads(sys.argv[1])
    configure()
    options = Options(
        retry_policy=RetryPolicy(
            first=0.05, longest=0.2, pause=0.05, longest_pause=0.2, obeyed=0.2
        ),
        rate_limit=RateLimit(given["per_hour"], 1000),
        timeouts=Timeouts(connect=2, first_byte=5, idle=5, total=60),
    )
    clock = Clock(**given["clock"])
    daemon = Daemon(Path(given["config"]), os.environ, clock, options, drain=given["drain"])
    return daemon.run()


if __name__ == "__main__":
    sys.exit(main())
