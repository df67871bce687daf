"""Actions of the daemon for changed flows and ended turns, as tables: no process, no clock."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest

from engine.config.file import Api, Config
from engine.daemon.reconcile import (
    RETRY_MS,
    Action,
    AddTicks,
    AfterTurn,
    Log,
    RemoveTicks,
    StopProcess,
    TickNow,
    after_turn,
    is_set_back,
    new_problems,
    reconcile,
    refusal,
    replan,
)
from engine.daemon.turn_queue import LATER, MORE
from engine.model.flow import Connection, Flow, Schedule, Secret, superseded_in_words

QUARTER = Schedule("minute", 15, 0)
HALF = Schedule("minute", 30, 0)
ONCE = Schedule("once", None, 0)
SHOP = Connection("https://h", "reader", Secret("s3cret"), 1)
FLOW = Flow("events", SHOP, "data/events", schedule=QUARTER)
OTHER = Flow("other", SHOP, "data/other", schedule=HALF)
UNPLANNED = replace(FLOW, schedule=None)
KEEPING = replace(FLOW, keep_superseded_hours=24.0)
IDLE = Log("warning", "this flow has no schedule: it is left alone", "events")
KEEPS = Log("warning", superseded_in_words(24.0), "events")
KEEPS_LONGER = Log("warning", superseded_in_words(48.0), "events")

CHANGES: list[tuple[str, list[Flow], list[Flow], list[Action]]] = [
    ("nothing", [], [], []),
    ("no change", [FLOW, OTHER], [FLOW, OTHER], []),
    ("a new flow", [OTHER], [FLOW, OTHER], [AddTicks("events", QUARTER)]),
    ("a new flow without a schedule", [], [UNPLANNED], [IDLE]),
    ("a flow that is gone", [FLOW, OTHER], [OTHER], [RemoveTicks("events"), StopProcess("events")]),
    (
        "all flows gone",
        [OTHER, FLOW],
        [],
        [
            RemoveTicks("events"),
            StopProcess("events"),
            RemoveTicks("other"),
            StopProcess("other"),
        ],
    ),
    ("another filter", [FLOW], [replace(FLOW, where="true")], [TickNow("events")]),
    (
        "another password",
        [FLOW],
        [replace(FLOW, connection=replace(SHOP, password=Secret("other")))],
        [TickNow("events")],
    ),
    ("another schedule", [FLOW], [replace(FLOW, schedule=HALF)], [AddTicks("events", HALF)]),
    (
        "another schedule and filter",
        [FLOW],
        [replace(FLOW, schedule=ONCE, where="true")],
        [AddTicks("events", ONCE)],
    ),
    ("no schedule any more", [FLOW], [UNPLANNED], [RemoveTicks("events"), IDLE]),
    ("a schedule at last", [UNPLANNED], [FLOW], [AddTicks("events", QUARTER)]),
    ("another filter, no schedule", [UNPLANNED], [replace(UNPLANNED, where="true")], []),
    ("once, with another filter", [replace(FLOW, schedule=ONCE)],
     [replace(FLOW, schedule=ONCE, where="true")], [TickNow("events")]),
    ("a new flow that keeps files", [], [KEEPING], [KEEPS, AddTicks("events", QUARTER)]),
    ("a flow that keeps files, unchanged", [KEEPING], [KEEPING], []),
    ("keeps files from now on", [FLOW], [KEEPING], [KEEPS, TickNow("events")]),
    (
        "keeps files longer",
        [KEEPING],
        [replace(KEEPING, keep_superseded_hours=48.0)],
        [KEEPS_LONGER, TickNow("events")],
    ),
    ("keeps files no more", [KEEPING], [FLOW], [TickNow("events")]),
    (
        "one gone, one changed, one new",
        [FLOW, OTHER],
        [replace(OTHER, lookback_days=9), replace(FLOW, name="third")],
        [
            RemoveTicks("events"),
            StopProcess("events"),
            TickNow("other"),
            AddTicks("third", QUARTER),
        ],
    ),
]  # fmt: skip


def by_name(flows: Sequence[Flow]) -> dict[str, Flow]:
    return {flow.name: flow for flow in flows}


@pytest.mark.parametrize(
    ("before", "after", "actions"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_changes_of_flows(before: list[Flow], after: list[Flow], actions: list[Action]) -> None:
    """Every change of a flow takes effect at once, and has no other effect."""
    assert reconcile(by_name(before), by_name(after)) == actions
    assert reconcile(by_name(after), by_name(after)) == []


def test_a_clock_that_was_set_back_plans_all_ticks_again() -> None:
    """Flows without a schedule have no ticks to plan."""
    flows = by_name([FLOW, OTHER, replace(UNPLANNED, name="idle")])
    assert replan(flows) == [AddTicks("events", QUARTER), AddTicks("other", HALF)]


@pytest.mark.parametrize(
    ("before", "now", "back"),
    [(1000, 1000, False), (1000, 90_000, False), (1000, 940, False), (1000, 939.9, True)],
)
def test_a_clock_is_set_back_by_more_than_a_minute(before: float, now: float, back: bool) -> None:
    """Corrections of seconds, and a clock that is set forward, change no plan."""
    assert is_set_back(before, now) == back


CONFIG = Config(Path("/home"), {"events": FLOW}, Api(token=Secret("first")))


@pytest.mark.parametrize(
    ("after", "setting"),
    [
        (replace(CONFIG, flows={}), ""),
        (replace(CONFIG, home=Path("/elsewhere")), "home"),
        (replace(CONFIG, api=Api(token=Secret("second"), hosts=("etl",))), ""),
        (replace(CONFIG, api=Api(port=1)), "api"),
        (replace(CONFIG, api=Api(host="0.0.0.0")), "api"),
        (replace(CONFIG, api=Api(datasets=Path("elsewhere"))), "api"),
        (replace(CONFIG, api=None), "api"),
    ],
)
def test_settings_that_cannot_change(after: Config, setting: str) -> None:
    """Home, address and folder of tables cannot change while the daemon runs."""
    assert refusal(CONFIG, after) == setting
    assert bool(refusal(after, CONFIG)) == bool(setting)


def test_a_problem_is_logged_once_until_its_reason_changes() -> None:
    """A flow that could run before, and one that cannot run for another reason, get a line."""
    before = {"same": "no table", "other": "no table", "mended": "no table"}
    after = {"same": "no table", "other": "no key", "new": "no key"}
    assert new_problems(before, after) == [
        Log("error", "this flow cannot run", name, (("error", "no key"),))
        for name in ("other", "new")
    ]


WAITING = Log("info", "waiting", "events", (("why", "Mixpanel's hourly budget is used up"),))


def killed(why: str) -> Log:
    event = "the run's process was ended from outside"
    return Log("error", event, "events", (("why", why),))


@pytest.mark.parametrize(
    ("status", "previous", "schedule", "follows"),
    [
        (0, MORE, QUARTER, AfterTurn()),
        (0, MORE, ONCE, AfterTurn()),
        (1, MORE, QUARTER, AfterTurn()),
        (2, MORE, QUARTER, AfterTurn()),
        (1, MORE, None, AfterTurn()),  # the flow is gone
        (1, MORE, ONCE, AfterTurn(retry=RETRY_MS)),
        (2, LATER, ONCE, AfterTurn(retry=RETRY_MS)),
        (MORE, MORE, QUARTER, AfterTurn(pause=0.1)),
        (MORE, LATER, ONCE, AfterTurn(pause=0.1)),
        (LATER, MORE, QUARTER, AfterTurn(pause=60, log=WAITING)),
        (LATER, LATER, QUARTER, AfterTurn(pause=60)),  # logged once, not once a minute
        (-SIGKILL, MORE, QUARTER, AfterTurn(log=killed("SIGKILL"))),
        (-SIGTERM, MORE, ONCE, AfterTurn(retry=RETRY_MS, log=killed("SIGTERM"))),
        (3, MORE, QUARTER, AfterTurn(log=killed("exit status 3"))),
    ],
)
def test_what_follows_a_turn(
    status: int, previous: int, schedule: Schedule | None, follows: AfterTurn
) -> None:
    """Another turn at once or later, a tick of a `once` flow that failed, or the next tick."""
    assert after_turn("events", status, previous, schedule) == follows
