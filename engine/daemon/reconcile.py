"""Decide what the daemon does when its flows change, and what follows a turn of a flow.

Pure: flows, settings, exit statuses and clocks in, actions out. `daemon`, `tick_timer` and
`dispatcher` carry the actions out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from signal import Signals
from typing import TYPE_CHECKING

from engine.daemon.turn_queue import LATER, MORE
from engine.model.flow import Flow, Schedule, superseded_in_words
from engine.model.schedule import MINUTE, is_once

if TYPE_CHECKING:
    from engine.config.file import Config

LATER_SECONDS = 60  # until the next turn of a flow whose hourly budget is used up
NEXT_SECONDS = 0.1  # until the next turn of a flow with more to pull: flows that wait go first
RETRY_MS = 15 * MINUTE  # until another tick of a `once` flow that failed: its schedule has no more
CLOCK_TOLERANCE = 60  # seconds by which the wall clock may go back before ticks are planned again


@dataclass(frozen=True, slots=True)
class AddTicks:
    """Plan the ticks of `flow` by `schedule` in place of those planned before; the first is now."""

    flow: str
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class RemoveTicks:
    """Plan no more ticks of `flow`."""

    flow: str


@dataclass(frozen=True, slots=True)
class TickNow:
    """Bring `flow` up to date now, beside its planned ticks; after the turn that may be running."""

    flow: str


@dataclass(frozen=True, slots=True)
class StopProcess:
    """End the process of `flow`, if one runs (P8), and give `flow` no other turn."""

    flow: str


@dataclass(frozen=True, slots=True)
class Log:
    """Log `event` about `flow` at `level`; `detail` are the line's other fields."""

    level: str
    event: str
    flow: str
    detail: tuple[tuple[str, str], ...] = ()


Action = AddTicks | RemoveTicks | TickNow | StopProcess | Log


def reconcile(before: Mapping[str, Flow], after: Mapping[str, Flow]) -> list[Action]:
    """The actions that make the daemon of the flows `before` the daemon of the flows `after`.

    Both map a flow's name to the flow. Whatever changes of a flow takes effect at once: the flow
    is brought up to date now, unless it has no schedule.
    """
    gone = sorted(before.keys() - after.keys())
    actions: list[Action] = [
        action for name in gone for action in (RemoveTicks(name), StopProcess(name))
    ]
    for name, flow in after.items():
        actions += _changes(before.get(name), flow)
    return actions


def _changes(was: Flow | None, flow: Flow) -> Iterator[Action]:
    name, hours = flow.name, flow.keep_superseded_hours
    if hours and (was is None or was.keep_superseded_hours != hours):
        yield Log("warning", superseded_in_words(hours), name)
    if was and was.schedule == flow.schedule:
        if was != flow and flow.schedule:
            yield TickNow(name)
    elif flow.schedule:
        yield AddTicks(name, flow.schedule)
    else:
        if was:
            yield RemoveTicks(name)
        yield Log("warning", "this flow has no schedule: it is left alone", name)


def replan(flows: Mapping[str, Flow]) -> list[AddTicks]:
    """The actions that plan all ticks again, after the wall clock was set back."""
    return [AddTicks(name, flow.schedule) for name, flow in flows.items() if flow.schedule]


def is_set_back(ahead_before: float, ahead_now: float) -> bool:
    """Whether the wall clock was set back, so that planned ticks lie too far in the future.

    Both: seconds by which the wall clock is ahead of the monotonic one.
    """
    return ahead_now < ahead_before - CLOCK_TOLERANCE


def refusal(before: "Config", after: "Config") -> str:
    """The name of a setting that differs and cannot change while the daemon runs; else empty."""
    if before.home != after.home:
        return "home"
    if (before.api and before.api.fixed) != (after.api and after.api.fixed):
        return "api"
    return ""


def new_problems(before: Mapping[str, str], after: Mapping[str, str]) -> list[Log]:
    """A log line for each flow that cannot run and could before, or for another reason.

    Both map a flow's name to the reason.
    """
    return [
        Log("error", "this flow cannot run", name, (("error", why),))
        for name, why in after.items()
        if before.get(name) != why
    ]


@dataclass(frozen=True, slots=True)
class AfterTurn:
    """What follows a turn of a flow.

    pause   seconds until the next turn of the same tick; None: the tick is over
    retry   ms until a tick beside the schedule's; None: the schedule has the next tick
    log     a line about the turn, if it deserves one
    """

    pause: float | None = None
    retry: int | None = None
    log: Log | None = None


def after_turn(flow: str, status: int, previous: int, schedule: Schedule | None) -> AfterTurn:
    """What follows a turn of `flow` whose process ended with exit status `status`.

    `previous`: the exit status of the turn before in this tick, MORE for the first; a negative
    status is the number of the signal that ended the process.
    """
    if status == MORE:
        return AfterTurn(pause=NEXT_SECONDS)
    if status == LATER:
        why = ("why", "Mixpanel's hourly budget is used up")
        waiting = Log("info", "waiting", flow, (why,)) if previous != LATER else None
        return AfterTurn(pause=LATER_SECONDS, log=waiting)
    killed = None
    if status not in (0, 1, 2):
        why = ("why", Signals(-status).name if status < 0 else f"exit status {status}")
        killed = Log("error", "the run's process was ended from outside", flow, (why,))
    return AfterTurn(retry=RETRY_MS if status and is_once(schedule) else None, log=killed)
