"""Months of a flow's life in milliseconds: after each step the table is what it should be.

There are a model of Mixpanel, where events come late, are shown late, vanish, or lack their
processing time or id; a model of a table, of which rows may be removed; and our clock, which jumps.
The plan is the program's. The expected table is computed from the promises and not from the plan.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from engine.model.due_windows import UNKNOWN, Due, Positions, backoff, due, fitting_days
from engine.model.flow import Connection, Flow, Schedule, Secret
from engine.model.schedule import is_later, last_tick, latest, next_tick
from engine.model.window import Window, consecutive, day_over, day_start

MINUTE, HOUR, FULL_DAY = 60_000, 3_600_000, 86_400_000
NEVER = 10**15
DAY = timedelta(days=1)
HISTORY = 15  # days of events before the flow is declared

lived: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def _tell() -> Iterator[None]:
    yield
    print("\nsimulated:", ", ".join(f"{count} {what}" for what, count in lived.items()))  # noqa: T201


@dataclass(frozen=True, slots=True)
class Event:
    """What happened in `day` of the project's calendar; an export shows it in [seen, gone)."""

    id: int
    day: date
    processed: int | None
    seen: int
    gone: int
    imported: bool  # later than lookback_days: arrival windows owe nothing
    prompt: bool  # seen soon enough after it was processed for an arrival window, or the next one
    keyed: bool  # has an `$insert_id`


@dataclass(frozen=True, slots=True)
class World:
    """A flow and the project behind it."""

    flow: Flow
    calendar: ZoneInfo  # by which Mixpanel reads dates: UTC or the project's zone
    began: int  # when the flow was declared
    days: int  # how long it is watched
    events_per_day: float | None
    failing: float  # how many pulls of 100 fail
    by_hand: int | None  # hours before that, at which some days were pulled by hand
    dated: bool  # whether Mixpanel tells its own clock
    jumps: float  # how many times of 100 that the clock is changed it jumps far
    restores: float  # how many rests of 100 the table is put back to an earlier version
    seed: int

    @property
    def late(self) -> int:
        return self.flow.lookback_days * FULL_DAY

    @property
    def delay(self) -> int:
        return self.flow.delay_minutes * MINUTE

    @property
    def ahead(self) -> int:
        """Return how far the clock may be ahead: `delay` covers that and Mixpanel's lag."""
        return self.delay // 2

    @property
    def overlap(self) -> int:
        return self.flow.overlap_minutes * MINUTE

    def settles(self, day: date) -> int:
        return day_over(day, self.flow.connection.zone) + self.late

    def readings(self, moment: int) -> tuple[date, date]:
        """Return the day of `moment` in both calendars, the earlier one first."""
        both = [
            datetime.fromtimestamp(moment / 1000, zone).date()
            for zone in (UTC, self.flow.connection.zone)
        ]
        return min(both), max(both)


def happen(world: World, dice: random.Random) -> list[Event]:
    """Events near the edges of days, of ticks and of lateness, and at other moments."""
    first = world.began - HISTORY * FULL_DAY
    return [
        happening(world, dice, n, first + dice.randrange((world.days + HISTORY) * FULL_DAY))
        for n in range(2 * (world.days + HISTORY))
    ]


def happening(world: World, dice: random.Random, name: int, time: int) -> Event:
    day = datetime.fromtimestamp(time / 1000, world.calendar).date()
    if dice.random() < 0.5:  # the first or the last instant of a day
        time = day_start(day, world.calendar) - dice.randrange(2)
        day = datetime.fromtimestamp(time / 1000, world.calendar).date()
    late = dice.choice([0, 0, 0, dice.randrange(MINUTE), dice.randrange(world.late), world.late])
    if dice.random() < 0.1:
        late = world.late + 1 + dice.randrange(20 * FULL_DAY)
    processed: int | None = time + late
    if world.flow.schedule and dice.random() < 0.3:  # the last instant of a span, or the first
        tick = last_tick(world.flow.schedule, time + dice.randrange(world.late))
        edge = (tick or 0) - world.delay - dice.randrange(2)
        processed = edge if time <= edge <= time + world.late else processed
    assert processed is not None
    imported = processed > time + world.late
    keyed = dice.random() < 0.8
    lag = dice.choice([0, 0, world.delay - world.ahead])
    if keyed and world.overlap and dice.random() < 0.5:  # later than that: settling brings it
        lag = dice.choice([world.overlap, dice.randrange(world.overlap)])
    seen, prompt = processed + lag, True
    if not imported and dice.random() < 0.15:
        seen, prompt = dice.randint(processed, world.settles(day)), False
    if not imported and dice.random() < 0.07:
        processed, prompt = None, False
    gone = NEVER
    if dice.random() < 0.1:
        gone = dice.randint(seen, max(seen, world.settles(day)))
    return Event(name, day, processed, seen, gone, imported, prompt, keyed)


@dataclass(slots=True)
class Table:
    """A model of the table: the result of commits."""

    start: int | None = None
    arrival: int | None = None
    doubtful: int = 0
    pulled: dict[date, int] = field(default_factory=dict)
    rows: dict[date, list[int]] = field(default_factory=lambda: defaultdict(list))
    undone: set[date] = field(default_factory=set)
    restored: set[date] = field(default_factory=set)  # ever: they are held whole from then on

    def positions(self, clock: int) -> Positions:
        pulled = {d: UNKNOWN if is_later(at, clock) else at for d, at in self.pulled.items()}
        doubtful = min(self.doubtful, clock)
        return Positions(self.start, self.arrival, pulled, doubtful, frozenset(self.undone))

    def commit(self, window: Window, events: list[Event], until: int, *, dated: bool) -> None:
        """Append an arrival window, without known events; replace the days of a day window."""
        if window.arrival:
            start, end = window.arrival
            if window.again:
                assert self.arrival is None or is_later(self.arrival, until), "M was right"
                reached = max(self.arrival or 0, *self.pulled.values(), 0)
                self.doubtful = until if dated else max(until, reached)
            else:
                assert self.arrival in (None, start), "a seam or an overlap"
            if self.start is None or (window.again and self.start >= end):
                self.start = start
            self.arrival = end
            self.append(window, events)
            return
        assert window.before == self.arrival, "the plan is stale"
        for day in window.days:
            self.rows[day] = []
            self.undone.discard(day)
            self.pulled[day] = until if window.before is None else window.before
        for item in events:
            self.rows[item.day].append(item.id)

    def append(self, window: Window, events: list[Event]) -> None:
        for item in events:
            early = item.processed is not None and item.processed < window.known_until
            if not early or (item.keyed and item.id not in self.rows[item.day]):
                self.rows[item.day].append(item.id)
                lived["late"] += early

    def restore(self, dice: random.Random) -> None:
        """Remove rows of some days, as if their last commits had never been made (P10)."""
        there = sorted(day for day, names in self.rows.items() if names)
        for day in dice.sample(there, min(len(there), dice.randrange(4))):
            self.rows[day] = [name for name in self.rows[day] if dice.random() < 0.5]
            self.undone.add(day)
            self.restored.add(day)
            lived["undone"] += 1


def export(events: list[Event], window: Window, now: int) -> list[Event]:
    """Return Mixpanel's response at `now`, by its clock."""
    return [
        item
        for item in events
        if window.from_date <= item.day <= window.to_date
        and item.seen <= now < item.gone
        and wanted(window, item.processed)
    ]


def wanted(window: Window, processed: int | None) -> bool:
    if window.requested:
        return processed is not None and window.requested[0] <= processed < window.requested[1]
    return window.before is None or processed is None or processed < window.before


class Life:
    """One flow, from its first tick on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = random.Random(world.seed)
        self.events = happen(world, self.dice)
        self.by_day: dict[date, list[Event]] = defaultdict(list)
        for item in self.events:
            self.by_day[item.day].append(item)
        self.table = Table()
        self.now = world.began  # Mixpanel's clock
        self.wrong = 0  # how far ours is ahead of it
        self.by_hand: set[date] = set()
        self.failures: dict[date, list[int]] = defaultdict(list)  # when, by our clock
        self.pulled_at: dict[date, int] = {}  # by Mixpanel's clock
        self.asked_at = 0  # when the last arrival window was, by Mixpanel's clock
        self.murky = 0  # what was processed before may be lost until it settles: no clock was right
        self.in_vain = False  # nothing more arrives until the next tick
        self.vain: dict[date, int] = {}  # days that are pulled, and due still by our clock
        self.refused = False  # days were asked for that have not begun

    @property
    def clock(self) -> int:
        return self.now + self.wrong

    @property
    def rests(self) -> dict[date, int]:
        """Return the backoffs by the history, without failures later than now."""
        found = {}
        for day, moments in self.failures.items():
            past = [at for at in moments if at <= latest(self.clock)]
            if past:
                found[day] = max(past) + backoff(len(past))
        return found | self.vain

    def pull_by_hand(self, hours: int) -> None:
        """Pull days up to today, before there are arrival windows."""
        at = self.now - hours * HOUR
        today = self.world.readings(at)[1]
        window = Window(today - 4 * DAY, today, before=at - self.world.delay)
        for item in export(self.events, window, at):
            self.table.rows[item.day].append(item.id)
        self.by_hand = set(window.days)
        self.pulled_at = dict.fromkeys(window.days, at)
        self.table.pulled = dict.fromkeys(window.days, at - self.world.delay)

    def live(self) -> None:
        if self.world.by_hand is not None and self.world.flow.windows == "arrival":
            self.pull_by_hand(self.world.by_hand)
        end = self.now + self.world.days * FULL_DAY
        while self.now < end:
            self.wait()
            if self.dice.random() * 100 < self.world.restores:
                self.table.restore(self.dice)
            self.work(self.world.failing)
        self.wrong, self.now = 0, self.now - self.now % 1000 + 2 * FULL_DAY  # every rest is over
        self.work(0)
        assert not list(self.plan())
        assert not self.table.undone or self.table.start is None  # M says how much of a day to keep
        assert not is_later(self.table.arrival or 0, self.now)
        self.check_up_to_date()
        lived["days"] += (self.now - self.world.began) // FULL_DAY

    def wait(self) -> None:
        """Wait until a tick, until a day has settled, or any time; sometimes change the clock."""
        dice, schedule = self.dice, self.world.flow.schedule
        if dice.random() < 0.1:
            self.wrong = dice.choice([0, self.world.ahead, dice.randint(-3 * HOUR, 0)])
            if dice.random() * 100 < self.world.jumps:
                far = [8 * HOUR, dice.randrange(4 * FULL_DAY), 400 * FULL_DAY, -40 * FULL_DAY]
                self.wrong = dice.choice(far)
                lived["jumps"] += 1
        chance = dice.random()
        until = self.clock + dice.randrange(12 * HOUR)
        if chance < 0.3 and schedule:
            until = (next_tick(schedule, self.clock) or until) - dice.choice([0, 0, 1])
        elif chance < 0.5:
            day = self.world.readings(self.clock - self.world.late)[0]
            until = self.world.settles(day) + dice.choice([0, self.world.delay])
        elif chance < 0.55:
            until = self.clock + dice.randrange(20 * FULL_DAY)
            lived["outages"] += 1
        self.now = max(self.now + 1, min(until - self.wrong, self.now + 20 * FULL_DAY))
        if self.wrong > self.world.ahead and not self.world.dated:
            self.murky = NEVER

    def plan(self) -> Iterator[Due]:
        return due(
            self.world.flow,
            self.table.positions(self.clock),
            self.clock,
            events_per_day=self.world.events_per_day,
            backoffs=self.rests,
        )

    def work(self, failing: float) -> None:
        """Pull all that is due now, planned again after each commit, and nothing twice."""
        done: list[Due] = []
        undisturbed = not self.failures and not self.table.undone
        self.in_vain = self.refused = False
        self.vain = {}
        while self.work_once(done, failing):
            pass
        undisturbed = undisturbed and not self.failures
        seen = Counter(
            (item.why, day)
            for item in done
            for day in ([None] if item.window.arrival else item.window.days)
        )
        assert max(seen.values(), default=1) == 1, "due again after it was committed"
        if undisturbed and not self.refused:
            self.check_few_requests(done)
        if not self.refused and not is_later(self.table.arrival or 0, self.clock):
            self.check_settled()

    def work_once(self, done: list[Due], failing: float) -> bool:
        """Pull what is planned; return whether a commit may have made more due."""
        committed = False
        for item in self.plan():
            if item.window.arrival and self.in_vain:
                continue
            if self.dice.random() * 100 < failing:
                lived["failures"] += 1
                for day in [] if item.window.arrival else item.window.days:
                    self.failures[day].append(self.clock)
                continue
            window = self.pull(item.window)
            if self.refused:
                return False
            if window is None:
                self.in_vain = True
                continue
            lived["commits"] += 1
            done.append(item)
            assert len(done) < 500, "no end of it"
            committed = True
            self.check_table()
            for day in [] if window.arrival else window.days:
                self.failures.pop(day, None)
            if window.arrival or self.dice.random() < 0.5:
                break  # an arrival window moves M: the rest of the plan is stale
        return committed

    def pull(self, asked: Window) -> Window | None:
        """Commit Mixpanel's events of a window, up to its own clock; None: nothing is left."""
        today = datetime.fromtimestamp(self.now / 1000, self.world.calendar).date()
        if (asked.to_date - today).days > 1:  # a day less is tried, and no other
            self.refused = True
            return None
        date_ = self.now - self.now % 1000 if self.world.dated else None
        window = asked if date_ is None else asked.until(date_ - self.world.delay)
        arrived = self.table.arrival
        if asked.again and date_ and arrived is not None and not is_later(arrived, date_):
            window = None  # our clock is behind: M is right
        if window is None:
            return None
        self.in_vain = self.in_vain or (window.arrival is not None and window != asked)
        until = self.clock if date_ is None else min(self.clock, date_)
        if asked.again and date_ is not None:
            until = date_
        dated = self.world.dated
        self.table.commit(window, export(self.events, window, self.now), until, dated=dated)
        if window.arrival:
            self.asked_at = self.now
            if window.again or (self.murky == NEVER and self.wrong <= self.world.ahead):
                self.murky = self.now
        else:
            self.pulled_at |= dict.fromkeys(window.days, self.now)
            if window.before is None and until < (self.tick() or 0):
                self.vain |= dict.fromkeys(window.days, self.clock + FULL_DAY)
        if dated and self.table.arrival is not None:
            assert self.table.arrival <= self.now - self.world.delay, "ahead of Mixpanel's clock"
        return window

    # What must hold ----------------------------------------------------------------------------

    def whole(self, day: date) -> bool:
        """Return whether the flow promises all of `day`, not only arrivals since its start."""
        flow, start = self.world.flow, self.table.start
        if flow.windows == "day":
            return day in self.table.pulled or day in self.asked()
        began = self.world.readings(start or 0)[1]
        return (
            day > began
            or day in self.by_hand
            or day in self.table.restored
            or (flow.backfill_from is not None and day >= flow.backfill_from)
        )

    def asked(self) -> set[date]:
        """Return the days that a flow with day windows has to hold by now."""
        flow, tick = self.world.flow, self.tick()
        if tick is None:
            return set()
        first = flow.backfill_from
        if first is None:
            origin = flow.schedule.start_time * 1000 if flow.schedule else tick - FULL_DAY
            first = self.world.readings(origin)[0]
        last = self.world.readings(tick)[1]
        return {first + n * DAY for n in range((last - first).days + 1)}

    def tick(self) -> int | None:
        schedule = self.world.flow.schedule
        return last_tick(schedule, self.clock) if schedule else self.clock

    def check_table(self) -> None:
        """After each commit: no row twice, none beyond the high watermark, none lost before it."""
        held = {name for names in self.table.rows.values() for name in names}
        assert len(held) == sum(map(len, self.table.rows.values())), "an event twice"
        start, until = self.table.start, self.table.arrival
        if start is None or until is None:
            return
        for item in self.events:
            at = item.processed
            pulled = self.table.pulled.get(item.day, 0)
            if item.id in held:
                assert at is None or at < max(until, self.table.doubtful), "beyond M"
                assert (at is not None and at >= start) or self.whole(item.day), "out of scope"
            elif at is not None and self.murky <= at < until and self.owed(item):
                assert not (at < pulled if at < start else not item.imported), "lost"
        began = self.world.readings(start)[1]
        for day, upto in self.table.pulled.items():
            assert self.whole(day), "out of scope"
            moved = self.table.doubtful > 0  # where arrival windows began, among others
            early = day > began and upto < self.world.settles(day) and not moved
            assert not early or day in self.by_hand | self.table.restored, "too early"

    def owed(self, item: Event) -> bool:
        """Return whether the table has to hold an event that was processed before the watermark."""
        if not item.prompt or item.gone <= self.now or item.day in self.table.undone:
            return False
        assert item.processed is not None
        if item.processed < (self.table.start or 0):  # what is seen later is no arrival's business
            return item.seen <= self.pulled_at.get(item.day, 0)
        if item.keyed:
            return item.seen <= self.asked_at
        # In doubt it is left to settling, as is what is seen later than a window that brought it.
        return item.processed >= self.table.doubtful

    def check_settled(self) -> None:
        """When nothing is due, every day is whole, as far as its age allows."""
        if self.world.flow.windows == "day":
            days, by, slack = self.asked() | set(self.table.pulled), self.tick(), self.world.ahead
        else:  # no slack: M is behind the clock by more than that
            days, by, slack = set(self.by_day), self.table.arrival, 0
        if by is None or self.murky == NEVER:
            return
        by = min(by, self.now)
        tired = {day for day, until in self.rests.items() if until > self.clock}
        for day in filter(self.whole, days - tired):
            if self.world.settles(day) <= min(by, self.clock):
                assert self.table.pulled[day] >= self.world.settles(day)
                if self.murky:  # no clock told when it was pulled
                    continue
                self.check_day(day, self.world.settles(day) - slack)
            elif self.world.flow.windows == "day":
                over = day_over(day, self.world.flow.connection.zone)
                assert self.table.pulled[day] >= min(by, over) - 1000 * self.world.dated
                if self.murky:
                    continue
                self.check_day(day, min(by, over) - slack)
            elif day <= self.world.readings(min(self.table.start or 0, self.clock))[1]:
                assert day in self.table.pulled, "no history"

    def check_day(self, day: date, upto: int) -> None:
        """The day holds what was shown at `upto`, except events that were deleted before."""
        held = set(self.table.rows[day])
        for item in self.by_day[day]:
            if item.gone <= upto:
                assert item.id not in held, "deleted, and still there"
            elif item.seen <= upto and item.gone > self.now:
                assert item.id in held, "missing"

    def check_few_requests(self, done: list[Due]) -> None:
        """Requests are filled with days, no day is in two, the backfill comes newest first."""
        most = fitting_days(self.world.events_per_day)
        for why in ("undone", "day", "settle", "backfill"):
            windows = [item.window for item in done if item.why == why]
            runs = consecutive(day for window in windows for day in window.days)
            assert len(windows) == sum(-(-len(run) // most) for run in runs)
            assert windows == sorted(windows, reverse=why == "backfill")
        days = [day for item in done if not item.window.arrival for day in item.window.days]
        assert len(days) == len(set(days)), "a day twice"

    def check_up_to_date(self) -> None:
        """At the end the high watermark is where the last tick wants it."""
        flow, tick = self.world.flow, self.tick()
        if flow.windows == "arrival" and tick is not None and self.table.arrival is not None:
            assert self.table.arrival >= tick - self.world.delay
        if flow.windows == "arrival" and self.table.start is None:
            assert flow.schedule
            recent = flow.schedule.start_time * 1000 > self.clock - 15 * FULL_DAY
            assert recent or (flow.schedule.frequency == "once" and self.by_hand)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Zones on both sides of Greenwich, both changes of clocks, every kind of schedule."""
    zone = draw(
        st.sampled_from(
            ["UTC", "America/Los_Angeles", "Asia/Kolkata", "Europe/Berlin", "Pacific/Auckland"]
        )
    )
    dawn = datetime(2024, draw(st.sampled_from([2, 3, 10])), draw(st.integers(1, 28)), tzinfo=UTC)
    began = int(dawn.timestamp()) * 1000
    start = began // 1000 + draw(st.sampled_from([0, -30 * 86400, 3600, 5 * 86400 + 7 * 3600 + 23]))
    schedule = draw(
        st.sampled_from(
            [
                Schedule("minute", 15, start),
                Schedule("hour", 1, start),
                Schedule("hour", 5, start),
                Schedule("day", 1, start),
                Schedule("week", 1, start),
                Schedule("once", None, start),
                None,
            ]
        )
    )
    back = draw(st.none() | st.integers(-HISTORY, 8))
    flow = Flow(
        "events",
        Connection("https://mixpanel", "user", Secret("secret"), 1, zone),
        "data",
        windows=draw(st.sampled_from(["arrival", "arrival", "day"])),
        lookback_days=draw(st.sampled_from([1, 2, 5])),
        delay_minutes=draw(st.sampled_from([0, 10, 60])),
        overlap_minutes=draw(st.sampled_from([0, 60, 60])),
        backfill_from=None if back is None else dawn.date() + back * DAY,
        schedule=schedule,
    )
    return World(
        flow,
        calendar=ZoneInfo(draw(st.sampled_from(["UTC", zone]))),
        began=began,
        days=draw(st.integers(20, 90)),
        events_per_day=draw(st.sampled_from([None, 400_000.0, 10.0])),
        failing=draw(st.sampled_from([0, 10, 50])),
        by_hand=draw(st.sampled_from([None, None, 0, 7])),
        dated=draw(st.sampled_from([True, True, False])),
        jumps=draw(st.sampled_from([0, 0, 30])),
        restores=draw(st.sampled_from([0, 0, 3])),
        seed=draw(st.integers(0, 2**32)),
    )


@settings(max_examples=600, deadline=None)
@given(worlds())
def test_the_table_is_what_it_should_be(world: World) -> None:
    """The table is right after every commit, through outages, failures and wrong clocks."""
    event(f"{world.flow.windows} windows")
    Life(world).live()
