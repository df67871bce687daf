"""What changes a running daemon: its file, its home, clients, the clock; all in this process.

The signals are scripted and the scheduler only notes its calls, so that no flow runs.
"""

import json
import os
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGHUP, SIGTERM
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from engine.control import declared_flows
from engine.control.secrets import NAME
from engine.daemon.daemon import Daemon
from engine.errors import InputError
from engine.log import configure
from engine.model.flow import Schedule
from tests.support.commands import put
from tests.support.daemons import Trial, clock_of

Step = int | Callable[[], int] | None
API = '[api]\nlisten = "127.0.0.1:0"\n'


@dataclass
class Script:
    """Scripted signals: each step is a signal, or a function that returns one."""

    steps: list[Step]
    woken: int = 0

    def wait(self, seconds: float) -> int | None:
        step = self.steps.pop(0)
        return step() if callable(step) else step

    def wake(self) -> None:
        self.woken += 1


@dataclass
class Plan:
    """A scheduler that notes its calls and fires no tick."""

    done: list[tuple[Any, ...]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given: self.done.append((name, *given))

    def taken(self) -> list[tuple[Any, ...]]:
        """Return the calls noted since the last time, without those of each pass of the loop."""
        done = [each for each in self.done if each[0] not in ("start", "stop", "wakeup")]
        self.done.clear()
        return done


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    made = Plan()
    monkeypatch.setattr("engine.daemon.daemon.TickTimer", lambda tick, clock: made)
    return made


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """A daemon with one flow, whose host gets no request."""
    put({"TRIAL_USERNAME": "u", "TRIAL_PASSWORD": "p"}, monkeypatch)
    nowhere: Any = SimpleNamespace(url="http://127.0.0.1:9")
    tried = Trial(tmp_path, nowhere, clock_of(1))
    tried.write()
    configure()
    return tried


def run(tried: Trial, *steps: Step) -> Script:
    """Run the daemon of `tried` through these steps, then stop it."""
    script = Script([*steps, SIGTERM])
    signals: Any = nullcontext(script)
    assert Daemon(tried.config, os.environ, signals=lambda: signals).run() == 0
    assert script.steps == []
    return script


def schedule_of(tried: Trial, interval: int = 15) -> Schedule:
    return Schedule("minute", interval, tried.clock.first // 1000 - 2 * 86_400)


def test_a_schedule_that_changes(tried: Trial, plan: Plan) -> None:
    """SIGHUP: the ticks of the new schedule replace those of the old one, the first at once."""
    text = tried.config.read_text()

    def change() -> int:
        assert plan.taken() == [("add_ticks", "events", schedule_of(tried))]
        tried.config.write_text(text.replace("interval = 15", "interval = 30"))
        return SIGHUP

    def filter_too() -> int:
        assert plan.taken() == [("add_ticks", "events", schedule_of(tried, 30))]
        tried.config.write_text(tried.config.read_text() + 'where = "true"\n')
        return SIGHUP

    def drop() -> int:
        assert plan.taken() == [("tick_now", "events")]
        tried.config.write_text(text.replace("[flows.events]", "[flows.other]"))
        return SIGHUP

    run(tried, SIGHUP, None, change, filter_too, drop)
    other = ("add_ticks", "other", schedule_of(tried))
    assert plan.taken() == [("remove_ticks", "events"), other]


def test_a_home_that_moves(tried: Trial, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    """A change of the home is refused, and with it all other changes of the file."""
    moved = tried.folder / "moved"

    def move() -> int:
        text = tried.config.read_text().replace(str(tried.home), str(moved))
        tried.config.write_text(text.replace("interval = 15", "interval = 30"))
        return SIGHUP

    run(tried, move)
    assert "home: cannot change while the daemon runs" in capsys.readouterr().err
    assert not moved.exists()
    assert plan.taken() == [("add_ticks", "events", schedule_of(tried))]


def test_a_clock_that_is_set_back(
    tried: Trial, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ticks are planned again, and the scheduler is woken."""
    clock = iter([1000.0, 1060.0, 1120.0 - 86_400])
    steady = iter([0.0, 60.0, 120.0, 0.0, 0.0, 0.0])
    fake = SimpleNamespace(time=lambda: next(clock), monotonic=lambda: next(steady))
    monkeypatch.setattr("engine.daemon.daemon.time", fake)
    run(tried, None, None)
    ticks = ("add_ticks", "events", schedule_of(tried))
    assert plan.done == [("start",), ticks, ("wakeup",), ticks, ("wakeup",), ("stop",)]


# The home --------------------------------------------------------------------------------


@pytest.fixture
def apply(tried: Trial) -> Callable[..., None]:
    """Store a flow in the home, as `mixpanel-etl apply` does."""
    from engine.catalog.database import Catalog
    from engine.catalog.resources import Resources
    from engine.config.file import load
    from engine.control import from_config
    from engine.control.secrets import secret_store_of

    def apply(name: str) -> None:
        own = tried.config.read_text()
        tried.write(name)
        path = tried.folder / "other.toml"
        path.write_text(tried.config.read_text())
        tried.config.write_text(own)
        with Catalog(tried.home) as catalog:
            loaded, vault = load(path, os.environ), secret_store_of(tried.home, None)
            origin = declared_flows.origin_of(path)
            from_config.apply(loaded, Resources(catalog), vault, tried.clock.now(), origin)

    return apply


def test_what_the_home_stores_changes(
    tried: Trial, plan: Plan, apply: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a change no flow is due; a new password makes all flows due that use it."""
    apply("second")

    def change() -> int:
        assert plan.taken() == []
        monkeypatch.setenv("TRIAL_PASSWORD", "another")
        apply("second")
        monkeypatch.setenv("TRIAL_PASSWORD", "p")
        return SIGHUP

    def begin() -> int:
        assert {name for what, name, _ in plan.taken() if what == "add_ticks"} == {
            "events", "second",
        }  # fmt: skip
        return SIGHUP

    run(tried, begin, change)
    assert plan.taken() == [("tick_now", "second")]


def test_a_home_that_cannot_be_read(
    tried: Trial, plan: Plan, apply: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """/readyz says so until it can be read; flows that were known before go on."""
    apply("second")
    tried.config.write_text(tried.config.read_text() + API)
    key = tried.home / NAME
    good = key.read_text()
    said: list[list[str]] = []
    address: list[str] = []

    def ask(then: str) -> Callable[[], int]:
        def step() -> int:
            lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
            address.extend(line["address"] for line in lines if line["event"] == "listening")
            token = {"x-api-key": (tried.home / "api.token").read_text()}
            problems = httpx.get(f"{address[0]}/readyz", headers=token).json()["problems"]
            said.append([each[:47] for each in problems if "home keeps" in each])
            key.write_text(then)
            return SIGHUP

        return step

    run(tried, ask("junk"), ask(good), ask(good))
    assert said == [[], ["What the home keeps cannot be read: The key for"], []]
    assert [each[0] for each in plan.taken()] == ["add_ticks"] * 2


def test_a_key_that_cannot_be_used(tried: Trial, plan: Plan) -> None:
    """The daemon ends before its start, and the lock of its home is free again."""
    good = tried.config.read_text()
    tried.config.write_text(f'{good}{API}key = {{ env = "TRIAL_USERNAME" }}\n')
    with pytest.raises(InputError, match="key for secrets is malformed"):
        run(tried)
    tried.config.write_text(good)
    run(tried)


# Clients ---------------------------------------------------------------------------------


class Plane:
    """A fake control plane; clients requested runs of the flows `requested`."""

    token_file = None
    address = "http://nowhere"
    requested: AbstractSet[str] = frozenset()

    def __init__(
        self, home: Any, api: Any, environ: Any, now: Any, changed: Callable[[], None], _: Any
    ) -> None:
        self.changed = changed

    def requested_flows(self, running: AbstractSet[str]) -> AbstractSet[str]:
        return self.requested & running

    def follow(self, *_: Any) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def join(self, seconds: float) -> None: ...


@pytest.fixture
def planes(tried: Trial, monkeypatch: pytest.MonkeyPatch) -> list[Plane]:
    """The fake control planes that daemons made."""
    made: list[Plane] = []

    class Noted(Plane):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr("engine.control.api.server.Server", Noted)
    tried.config.write_text(tried.config.read_text() + API)
    return made


def test_many_changes_are_read_once(
    tried: Trial, plan: Plan, planes: list[Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: many changes cause one update and delay no stop; a change during it, one more."""
    reads: list[int] = []
    kept = declared_flows.flows_in_home

    def read(*given: Any) -> Any:
        reads.append(len(reads))
        if len(reads) == 2:
            planes[0].changed()
        return kept(*given)

    monkeypatch.setattr(declared_flows, "flows_in_home", read)

    def change() -> int:
        for _ in range(300):
            planes[0].changed()
        return 0

    def is_read(times: int) -> Callable[[], int]:
        def step() -> int:
            assert len(reads) == times
            return 0

        return step

    script = run(tried, is_read(1), change, is_read(2), is_read(3))
    assert script.woken == 2
    assert len(reads) == 3


def test_requested_runs(tried: Trial, plan: Plan, planes: list[Plane]) -> None:
    """A run that a client requested starts at once, if its flow is run by this daemon."""
    before = schedule_of(tried)

    def request() -> int:
        assert plan.taken() == [("add_ticks", "events", before)]
        planes[0].requested = {"events", "gone"}
        planes[0].changed()
        return 0

    run(tried, request)
    assert plan.taken() == [("tick_now", "events")]
