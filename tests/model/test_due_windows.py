"""Which windows are due, and how many days go into one request, as tables."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.due_windows import Due, Positions, backoff, due, next_window, request_range
from engine.model.flow import Connection, Flow, Schedule, Secret
from engine.model.schedule import last_tick, next_tick
from engine.model.window import Window, day_over, last_over


def days(first: str, count: int) -> list[date]:
    return [date.fromisoformat(first) + timedelta(days=n) for n in range(count)]


@pytest.mark.parametrize(
    ("left", "events_per_day", "size", "expected"),
    [
        (days("2024-01-01", 40), None, None, ("2024-01-01", "2024-01-01")),
        (days("2024-01-01", 40), 10.0, None, ("2024-01-01", "2024-01-31")),
        (days("2024-01-01", 40), 0.0, None, ("2024-01-01", "2024-01-31")),
        (days("2024-01-01", 40), 300_000.0, None, ("2024-01-01", "2024-01-03")),
        (days("2024-01-01", 40), 9_000_000.0, None, ("2024-01-01", "2024-01-01")),
        (days("2024-01-01", 40), 9_000_000.0, 7, ("2024-01-01", "2024-01-07")),
        (days("2024-01-01", 2) + days("2024-01-05", 9), 1.0, None, ("2024-01-01", "2024-01-02")),
    ],
)
def test_days_in_one_request(
    left: list[date], events_per_day: float | None, size: int | None, expected: tuple[str, str]
) -> None:
    """Neighbouring days share a request of about a million events and at most 31 days."""
    first, last = (date.fromisoformat(text) for text in expected)
    assert next_window(left, events_per_day, size) == Window(first, last)


@pytest.mark.parametrize(
    ("asked", "size", "expected"),
    [
        (days("2024-01-01", 31), None, (1, 31)),
        (days("2024-01-01", 32), None, (2, 32)),
        (days("2024-01-01", 10), 3, (4, 4)),
        (days("2024-01-01", 1) + days("2024-01-03", 1), None, (2, 2)),
        ([], None, (0, 0)),
    ],
)
def test_how_many_requests(asked: list[date], size: int | None, expected: tuple[int, int]) -> None:
    """A dry run shows the fewest and the most requests."""
    assert request_range(asked, size) == expected


HOUR = 3_600_000
FULL_DAY = 24 * HOUR
DELAY = 600_000
LATE = 5 * FULL_DAY
NEW = Positions(None, None, {})


def ms(text: str) -> int:
    """An instant in UTC, in ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def schedule(frequency: str, interval: int | None, start: str) -> Schedule:
    return Schedule(frequency, interval, ms(start) // 1000)


HOURLY = schedule("hour", 1, "2024-03-01T00:00")


def flow(
    timezone: str = "UTC",
    *,
    windows: str = "arrival",
    ticks: Schedule | None = HOURLY,
    backfill_from: str | None = None,
) -> Flow:
    return Flow(
        "events",
        Connection("https://mixpanel", "user", Secret("secret"), 1, timezone),
        "data",
        windows=windows,
        backfill_from=date.fromisoformat(backfill_from) if backfill_from else None,
        schedule=ticks,
    )


def pulled(first: str, count: int, at: str) -> dict[date, int]:
    return dict.fromkeys(days(first, count), ms(at))


def told(found: list[Due]) -> list[str]:
    """Return what is due, as texts of the reason and the days."""
    return [f"{item.why} {replace(item.window, arrival=None)}" for item in found]


def arrival(found: list[Due]) -> tuple[str, int, int] | None:
    """The days and the span of the arrival window that is due."""
    windows = [item.window for item in found if item.why == "arrival"]
    assert len(windows) <= 1
    if not windows or not windows[0].arrival:
        return None
    return (str(replace(windows[0], arrival=None)), *windows[0].arrival)


ODD = "2024-03-01T10:07:23"


@pytest.mark.parametrize(
    ("frequency", "interval", "now", "last", "following"),
    [
        ("minute", 15, "2024-03-01T10:07:22.999", None, "2024-03-01T10:07:23"),
        ("minute", 15, "2024-03-01T10:07:23", "2024-03-01T10:07:23", "2024-03-01T10:22:23"),
        ("minute", 15, "2024-03-01T10:22:22.999", "2024-03-01T10:07:23", "2024-03-01T10:22:23"),
        ("hour", 5, "2024-03-02T00:00", "2024-03-01T20:07:23", "2024-03-02T01:07:23"),
        ("day", 2, "2024-03-11T10:07:22", "2024-03-09T10:07:23", "2024-03-11T10:07:23"),
        ("day", 1, "2024-03-12T10:07:23", "2024-03-12T10:07:23", "2024-03-13T10:07:23"),
        ("week", 1, "2024-03-31T00:00", "2024-03-29T10:07:23", "2024-04-05T10:07:23"),
        ("once", None, "2024-03-01T10:07:22.999", None, "2024-03-01T10:07:23"),
        ("once", None, "2024-03-01T10:07:23", "2024-03-01T10:07:23", None),
        ("once", None, "2030-01-01T00:00", "2024-03-01T10:07:23", None),
    ],
)
def test_ticks(
    frequency: str, interval: int | None, now: str, last: str | None, following: str | None
) -> None:
    """Ticks are whole intervals from `start_time` on, in UTC, also through daylight saving."""
    ticks = schedule(frequency, interval, ODD)
    assert last_tick(ticks, ms(now)) == (ms(last) if last else None)
    assert next_tick(ticks, ms(now)) == (ms(following) if following else None)


@given(st.integers(0, 4 * 10**12), st.sampled_from(["minute", "hour", "day", "week"]))
def test_a_tick_is_followed_by_the_next(now: int, frequency: str) -> None:
    """`now` lies between two neighbouring ticks; at a tick the last tick is `now`."""
    ticks = Schedule(frequency, 15, 7)
    last, following = last_tick(ticks, now), next_tick(ticks, now)
    assert following is not None
    assert now < following
    if last is None:
        assert following == 7_000
    else:
        assert last <= now
        assert next_tick(ticks, last) == following
        assert last_tick(ticks, following) == following
        assert last_tick(ticks, following - 1) == last


@pytest.mark.parametrize(
    ("failures", "minutes"), [(0, 0), (1, 15), (2, 30), (3, 60), (7, 960), (8, 1440), (10**6, 1440)]
)
def test_the_backoff_of_a_day_that_fails(failures: int, minutes: int) -> None:
    """The backoff grows with each failure, up to a day."""
    assert backoff(failures) == minutes * 60_000


@pytest.mark.parametrize(
    ("timezone", "now", "expected"),
    [
        ("UTC", "2024-03-02T00:00", "2024-03-01"),
        ("UTC", "2024-03-01T23:59:59.999", "2024-02-29"),
        ("America/Los_Angeles", "2024-03-10T07:59", "2024-03-08"),
        ("America/Los_Angeles", "2024-03-10T08:00", "2024-03-09"),
        ("America/Los_Angeles", "2024-03-11T06:59", "2024-03-09"),  # the 10th has 23 hours
        ("America/Los_Angeles", "2024-03-11T07:00", "2024-03-10"),
        ("America/Los_Angeles", "2024-11-04T07:59", "2024-11-02"),  # the 3rd has 25
        ("America/Los_Angeles", "2024-11-04T08:00", "2024-11-03"),
        ("Asia/Kolkata", "2024-03-01T23:59", "2024-02-29"),  # over in India, not by UTC
        ("Asia/Kolkata", "2024-03-02T00:00", "2024-03-01"),
    ],
)
def test_the_last_day_that_has_ended(timezone: str, now: str, expected: str) -> None:
    """A day has ended when it has ended in UTC and in the project's time zone."""
    assert last_over(ms(now), ZoneInfo(timezone)) == date.fromisoformat(expected)


@given(
    st.integers(0, 4 * 10**12),
    st.sampled_from(["UTC", "Pacific/Kiritimati", "Pacific/Apia", "America/Havana", "Asia/Beirut"]),
)
def test_the_day_after_the_last_that_has_ended_has_not(now: int, timezone: str) -> None:
    """In every time zone, also on days when its clocks are changed."""
    zone = ZoneInfo(timezone)
    day = last_over(now, zone)
    assert day_over(day, zone) <= now < day_over(day + timedelta(days=1), zone)


def test_a_window_is_read_back_from_json() -> None:
    """Every field survives JSON; `before` may be missing; `arrival` with it is refused."""
    day = date(2024, 3, 1)
    for window in (Window(day, day), Window(day, day, (1, 2)), Window(day, day, before=0)):
        assert Window.from_json(window.as_json()) == window
    assert Window.from_json({"from_date": "2024-03-01", "to_date": "2024-03-01"}).before is None
    with pytest.raises(ValueError, match="not by both"):
        Window(day, day, (1, 2), before=3)


@pytest.mark.parametrize(
    ("ticks", "now", "expected"),
    [
        # start_time is recent: from there on, and nothing at the first tick itself
        (HOURLY, "2024-02-29T23:00", None),
        (HOURLY, "2024-03-01T00:30", None),
        (HOURLY, "2024-03-01T01:00", ("2024-02-25..2024-03-01", "03-01T00:00", "03-01T00:50")),
        # start_time is long ago: lookback_days before the window's end, wherever `now` is
        (HOURLY, "2024-03-20T01:00", ("2024-03-10..2024-03-20", "03-15T00:50", "03-20T00:50")),
        (HOURLY, "2024-03-20T01:59", ("2024-03-10..2024-03-20", "03-15T00:50", "03-20T00:50")),
        # an interval longer than lookback_days loses nothing after start_time
        (
            schedule("week", 1, "2024-03-01T00:00"),
            "2024-03-08T00:00",
            ("2024-02-25..2024-03-08", "03-01T00:00", "03-07T23:50"),
        ),
        (
            schedule("week", 1, "2023-03-03T00:00"),
            "2024-03-08T00:00",
            ("2024-02-24..2024-03-08", "02-29T23:50", "03-07T23:50"),
        ),
        # once: what arrived in lookback_days before it, however late it is done
        (schedule("once", None, "2024-03-06T00:00"), "2024-03-05T23:59", None),
        (
            schedule("once", None, "2024-03-06T00:00"),
            "2024-03-06T00:00",
            ("2024-02-24..2024-03-06", "02-29T23:50", "03-05T23:50"),
        ),
        (
            schedule("once", None, "2024-03-06T00:00"),
            "2024-04-06T00:00",
            ("2024-02-24..2024-04-06", "02-29T23:50", "03-05T23:50"),
        ),
        # no schedule: now
        (None, "2024-03-06T00:10", ("2024-02-25..2024-03-06", "03-01T00:00", "03-06T00:00")),
    ],
)
def test_the_first_arrival_window(
    ticks: Schedule | None, now: str, expected: tuple[str, str, str] | None
) -> None:
    """The span begins at `start_time` or `lookback_days` before its end; its days before that."""
    found = arrival(list(due(flow(ticks=ticks), NEW, ms(now))))
    assert found == (
        expected and (expected[0], ms(f"2024-{expected[1]}"), ms(f"2024-{expected[2]}"))
    )


@pytest.mark.parametrize(
    ("timezone", "m", "now", "expected"),
    [
        ("UTC", "03-20T00:50", "03-20T01:59", None),
        ("UTC", "03-20T00:50", "03-20T02:00", ("2024-03-14..2024-03-20", "03-20T01:50")),
        ("UTC", "03-20T00:50", "03-20T05:59", ("2024-03-14..2024-03-20", "03-20T04:50")),
        ("UTC", "03-20T01:00", "03-20T05:59", ("2024-03-15..2024-03-20", "03-20T04:50")),
        ("UTC", "03-20T00:50", "04-20T05:59", ("2024-03-14..2024-04-20", "04-20T04:50")),
        ("UTC", "03-20T00:50", "03-20T00:49:30", None),  # the clock was set back a little
        ("UTC", "03-20T01:49:59.999", "03-20T02:00", ("2024-03-15..2024-03-20", "03-20T01:50")),
        ("UTC", "03-20T01:50", "03-20T02:00", None),
        # west of Greenwich yesterday is still going on, east of it tomorrow has begun
        (
            "America/Los_Angeles",
            "03-20T00:50",
            "03-20T02:00",
            ("2024-03-14..2024-03-20", "03-20T01:50"),
        ),
        ("Asia/Kolkata", "03-20T00:50", "03-20T20:00", ("2024-03-14..2024-03-21", "03-20T19:50")),
        # five times 24 hours before 00:50 of the 12th it is 23:50 of the 6th: the 10th had 23
        (
            "America/Los_Angeles",
            "03-12T07:50",
            "03-12T09:00",
            ("2024-03-06..2024-03-12", "03-12T08:50"),
        ),
    ],
)
def test_the_next_arrival_window(
    timezone: str, m: str, now: str, expected: tuple[str, str] | None
) -> None:
    """The span begins at the watermark; its days include those of late events in the overlap."""
    at = ms(f"2024-{m}")
    positions = Positions(ms("2024-03-01T00:00"), at, {})
    found = arrival(list(due(flow(timezone), positions, ms(f"2024-{now}"))))
    assert found == (expected and (expected[0], at, ms(f"2024-{expected[1]}")))


# The overlap, and clocks that were wrong -------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "pulled", "expected"),
    [
        ("01T00:00", [], 60),
        ("20T00:00", [], 50),  # not before the first arrival window began
        ("20T00:50", [], 0),
        ("20T00:50", [14, 15, 16, 17, 18, 19, 20], 60),  # what came before is part of the table
        ("20T00:50", [14, 15, 16, 17, 18, 19], 0),
        ("20T00:50", [15, 16, 17, 18, 19, 20], 0),
    ],
)
def test_how_far_a_window_overlaps(start: str, pulled: list[int], expected: int) -> None:
    """By `overlap_minutes`; before the first arrival window only if its days were pulled whole."""
    at = ms("2024-03-20T00:50")
    days = {date(2024, 3, day): at for day in pulled}
    positions = Positions(ms(f"2024-03-{start}"), at, days)
    (first, *_) = due(flow(), positions, ms("2024-03-20T02:00"))
    assert first.window.overlap == expected * 60_000
    assert first.window.arrival == (at, ms("2024-03-20T01:50"))


def test_a_high_watermark_later_than_now() -> None:
    """The window requests again what unsettled days may lack, and no day before."""
    positions = Positions(ms("2024-03-01T00:00"), ms("2024-03-20T20:00"), {})
    (only,) = due(flow(), positions, ms("2024-03-20T12:00"))
    assert only.window.again
    assert only.window.arrival == (ms("2024-03-15T00:00"), ms("2024-03-20T11:50"))
    assert only.window.from_date <= date(2024, 3, 15)
    (only,) = due(flow(), replace(positions, start=ms("2024-03-18T07:00")), ms("2024-03-20T12:00"))
    assert only.window.arrival == (ms("2024-03-18T07:00"), ms("2024-03-20T11:50"))


def test_a_backoff_that_a_wrong_clock_set() -> None:
    """A backoff of more than a day is ignored."""
    now = ms("2024-03-10T00:10")
    daily = flow(windows="day")
    fresh = Positions(None, None, {})
    far = {date(2024, 3, 9): now + 400 * 86_400_000}
    near = {date(2024, 3, 9): now + 1}
    assert date(2024, 3, 9) in days_of(due(daily, fresh, now, backoffs=far))
    assert date(2024, 3, 9) not in days_of(due(daily, fresh, now, backoffs=near))


@pytest.mark.parametrize("windows", ["day", "arrival"])
def test_days_that_were_undone(windows: str) -> None:
    """P10: a day of which rows were removed is due again, though it was pulled."""
    now, day = ms("2024-03-20T12:00"), date(2024, 3, 3)
    at = ms("2024-03-19T00:00")
    pulled = {date(2024, 3, n): at for n in range(1, 21)}
    found = Positions(None, None, pulled)
    if windows == "arrival":
        found = Positions(ms("2024-03-01T00:00"), ms("2024-03-20T11:50"), pulled)
    of = flow(windows=windows)
    assert day not in days_of(due(of, found, now))
    assert day in days_of(due(of, replace(found, undone=frozenset([day])), now))


def days_of(found: Iterable[Due]) -> set[date]:
    """The days that are to be pulled whole."""
    return {day for each in found if not each.window.arrival for day in each.window.days}


def test_arrival_windows_begin_after_what_was_pulled_before() -> None:
    """P4: arrival windows begin where the days end that `backfill` pulled before them."""
    by_hand = pulled("2024-02-28", 2, "2024-03-01T00:20") | pulled("2024-02-20", 1, "2024-03-01")
    found = arrival(list(due(flow(), Positions(None, None, by_hand), ms("2024-03-01T02:00"))))
    assert found == ("2024-02-25..2024-03-01", ms("2024-03-01T00:20"), ms("2024-03-01T01:50"))
    long_ago = pulled("2024-02-20", 1, "2024-03-01T00:20")
    found = arrival(list(due(flow(), Positions(None, None, long_ago), ms("2024-03-01T02:00"))))
    assert found == ("2024-02-25..2024-03-01", ms("2024-03-01T00:00"), ms("2024-03-01T01:50"))


def test_the_start_and_the_end_of_arrival_windows_are_known_together() -> None:
    """Positions with only one of them are refused."""
    with pytest.raises(ValueError, match="a start and an end"):
        Positions(None, 1, {})


@pytest.mark.parametrize(
    ("timezone", "m", "settled"),
    [
        ("UTC", "2024-03-08T00:00", "2024-03-02"),
        ("UTC", "2024-03-07T23:59:59.999", None),
        ("America/Los_Angeles", "2024-03-08T07:59:59.999", None),
        ("America/Los_Angeles", "2024-03-08T08:00", "2024-03-02"),
        ("Asia/Kolkata", "2024-03-07T23:59:59.999", None),
        ("Asia/Kolkata", "2024-03-08T00:00", "2024-03-02"),
    ],
)
def test_a_day_settles_when_nothing_late_can_come(
    timezone: str, m: str, settled: str | None
) -> None:
    """A day settles when the watermark is `lookback_days` after its end in both time zones."""
    positions = Positions(ms("2024-03-01T12:00"), ms(m), {})
    found = [
        item
        for item in due(flow(timezone), positions, ms("2024-03-08T08:00") + DELAY)
        if item.why != "arrival"
    ]
    assert told(found) == ([f"settle {settled}"] if settled else [])
    assert all(item.window.before == ms(m) for item in found)


@pytest.mark.parametrize(
    ("at", "again"),
    [("2024-03-07T23:59:59.999", True), ("2024-03-08T00:00", False), ("2024-03-10", False)],
)
def test_a_day_settles_once(at: str, again: bool) -> None:
    """A day that was pulled after it settled is not pulled again."""
    m = ms("2024-03-08T23:00")
    held = pulled("2024-03-02", 1, at)
    found = list(due(flow(), Positions(ms("2024-03-01T12:00"), m, held), m + DELAY))
    assert told(found) == (["settle 2024-03-02"] if again else [])


def test_settling_waits_for_a_clock_that_was_set_back() -> None:
    """A day does not settle by a high watermark that is later than `now`."""
    positions = Positions(ms("2024-03-01T12:00"), ms("2024-03-08T00:00"), {})
    assert not list(due(flow(), positions, ms("2024-03-07T23:59")))
    assert told(list(due(flow(), positions, ms("2024-03-08T00:00")))) == ["settle 2024-03-02"]


@pytest.mark.parametrize(
    ("timezone", "began", "backfill_from", "held", "expected"),
    [
        # none asked for: the day of the first start, by either clock, is never pulled whole
        ("UTC", "2024-03-01T23:00", None, {}, ["settle 2024-03-02"]),
        ("Asia/Kolkata", "2024-03-01T23:00", None, {}, []),
        ("America/Los_Angeles", "2024-03-02T03:00", None, {}, []),
        # newest first, the day of the first start among them, after what settles
        (
            "UTC",
            "2024-03-01T12:00",
            "2024-02-28",
            {},
            [
                "settle 2024-03-02",
                "backfill 2024-03-01",
                "backfill 2024-02-29",
                "backfill 2024-02-28",
            ],
        ),
        (
            "Asia/Kolkata",
            "2024-03-01T23:00",
            "2024-03-01",
            {},
            ["backfill 2024-03-02", "backfill 2024-03-01"],
        ),
        # what was pulled before it settled settles; what was pulled since is done
        (
            "UTC",
            "2024-03-01T12:00",
            "2024-02-28",
            pulled("2024-02-28", 1, "2024-03-05") | pulled("2024-03-01", 1, "2024-03-02"),
            ["settle 2024-03-01", "settle 2024-03-02", "backfill 2024-02-29"],
        ),
        # what was pulled by hand stays whole
        (
            "UTC",
            "2024-03-01T12:00",
            None,
            pulled("2024-02-28", 1, "2024-03-01"),
            ["settle 2024-02-28", "settle 2024-03-02"],
        ),
        # later than the first start: nothing to pull back
        ("UTC", "2024-03-01T12:00", "2024-03-04", {}, ["settle 2024-03-02"]),
    ],
)
def test_the_days_beside_arrival_windows(
    timezone: str,
    began: str,
    backfill_from: str | None,
    held: dict[date, int],
    expected: list[str],
) -> None:
    """Settling days, oldest first; then the backfill, newest first; all up to the watermark."""
    m = ms("2024-03-08T08:00")
    positions = Positions(ms(began), m, held)
    found = list(due(flow(timezone, backfill_from=backfill_from), positions, m + DELAY))
    assert told(found) == expected
    assert all(item.window.before == m for item in found)


def test_no_day_is_pulled_before_the_first_arrival_window() -> None:
    """Without a high watermark it is unknown how much of a day belongs to it."""
    found = list(due(flow(backfill_from="2024-01-01"), NEW, ms("2024-03-01T02:00")))
    assert told(found) == ["arrival 2024-02-25..2024-03-01"]


def test_arrival_windows_come_first() -> None:
    """The arrival window comes first, since its commit changes the plan."""
    m = ms("2024-03-08T00:00")
    positions = Positions(ms("2024-03-01T12:00"), m, {})
    found = list(due(flow(backfill_from="2024-03-01"), positions, m + HOUR + DELAY))
    assert [item.why for item in found] == ["arrival", "settle", "backfill"]


@pytest.mark.parametrize(
    ("events_per_day", "settle", "backfill"),
    [
        (None, 8, ["2024-03-10", "2024-03-09"]),
        (300_000.0, 3, ["2024-03-08..2024-03-10", "2024-03-05..2024-03-07"]),
        (10.0, 1, ["2024-02-09..2024-03-10", "2024-01-09..2024-02-08"]),
    ],
)
def test_neighbouring_days_share_a_request(
    events_per_day: float | None, settle: int, backfill: list[str]
) -> None:
    """A request has about a million events; the backfill is split from its newest day on."""
    m = ms("2024-03-24T00:00")
    positions = Positions(ms("2024-03-10T12:00"), m, {})
    found = list(
        due(
            flow(backfill_from="2023-01-01"),
            positions,
            m + DELAY,
            events_per_day=events_per_day,
        )
    )
    assert sum(item.why == "settle" for item in found) == settle
    assert [str(item.window) for item in found if item.why == "backfill"][:2] == backfill
    everything = [day for item in found for day in item.window.days]
    assert sorted(everything) == days("2023-01-01", len(everything))


def test_a_day_that_failed_waits_and_then_takes_a_request() -> None:
    """A failed day waits for its backoff and then takes a request, without its neighbours (P9)."""
    m = ms("2024-03-24T00:00")
    positions, now, bad = Positions(ms("2024-03-10T12:00"), m, {}), m + DELAY, date(2024, 3, 13)
    for until, expected in (
        (now + 1, ["settle 2024-03-11..2024-03-12", "settle 2024-03-14..2024-03-18"]),
        (
            now,
            ["settle 2024-03-11..2024-03-12", "settle 2024-03-13", "settle 2024-03-14..2024-03-18"],
        ),
    ):
        found = due(flow(), positions, now, events_per_day=10, backoffs={bad: until})
        assert told(list(found)) == expected


DAILY = schedule("day", 1, "2024-03-01T06:00")


@pytest.mark.parametrize(
    ("ticks", "backfill_from", "held", "now", "expected"),
    [
        # before the first tick
        (DAILY, "2024-01-01", {}, "2024-03-01T05:59", []),
        # from the day of start_time to today
        (DAILY, None, {}, "2024-03-02T06:00", ["day 2024-03-01..2024-03-02"]),
        # between two ticks nothing is due, not even a day that has begun since
        (DAILY, None, pulled("2024-03-01", 1, "2024-03-01T06:00"), "2024-03-02T05:59", []),
        # the running day once a tick, until a pull after its end
        (
            DAILY,
            None,
            pulled("2024-03-01", 1, "2024-03-01T06:00"),
            "2024-03-02T06:00",
            ["day 2024-03-01..2024-03-02"],
        ),
        (
            DAILY,
            None,
            pulled("2024-03-01", 2, "2024-03-02T06:00"),
            "2024-03-03T06:00",
            ["day 2024-03-02..2024-03-03"],
        ),
        (
            HOURLY,
            None,
            pulled("2024-03-01", 1, "2024-03-02T00:00"),
            "2024-03-02T00:30",
            ["day 2024-03-02"],
        ),
        (
            HOURLY,
            None,
            pulled("2024-03-01", 1, "2024-03-01T23:59:59.999"),
            "2024-03-02T00:30",
            ["day 2024-03-01..2024-03-02"],
        ),
        # settled at the first tick that is late enough, and once
        (
            HOURLY,
            "2024-03-01",
            pulled("2024-03-01", 7, "2024-03-06T23:59"),
            "2024-03-07T00:00",
            ["day 2024-03-06..2024-03-07", "settle 2024-03-01"],
        ),
        (
            HOURLY,
            "2024-03-01",
            pulled("2024-03-01", 7, "2024-03-07T00:00"),
            "2024-03-07T00:30",
            [],
        ),
        # history after the rest, newest first
        (
            HOURLY,
            "2024-02-20",
            pulled("2024-02-25", 1, "2024-02-25T12:00"),
            "2024-03-02T00:00",
            [
                "day 2024-02-26..2024-03-02",
                "settle 2024-02-25",
                "backfill 2024-02-20..2024-02-24",
            ],
        ),
        (
            HOURLY,
            "2024-02-20",
            {},
            "2024-03-02T00:00",
            ["day 2024-02-26..2024-03-02", "backfill 2024-02-20..2024-02-25"],
        ),
        # once is once: nothing begins or settles after it
        (
            schedule("once", None, "2024-03-01T06:00"),
            None,
            {},
            "2024-03-20T06:00",
            ["day 2024-03-01"],
        ),
        (
            schedule("once", None, "2024-03-01T06:00"),
            None,
            pulled("2024-03-01", 1, "2024-03-01T06:00"),
            "2024-03-20T06:00",
            [],
        ),
        # no start: from yesterday on, and from there on whatever was missed meanwhile
        (Schedule("day", 1, 0), None, {}, "2024-03-02T06:00", ["day 2024-03-01..2024-03-02"]),
        (
            Schedule("hour", 1, 0),
            None,
            pulled("2024-03-01", 1, "2024-03-02T00:00"),
            "2024-03-05T06:30",
            ["day 2024-03-02..2024-03-05"],
        ),
        (
            Schedule("day", 1, 0),
            "2024-03-01",
            {},
            "2024-03-03T06:00",
            ["day 2024-03-01..2024-03-03"],
        ),
        # no schedule: yesterday and today, at every call
        (None, None, {}, "2024-03-02T06:00", ["day 2024-03-01..2024-03-02"]),
        # the clock was set back
        (HOURLY, None, pulled("2024-03-01", 1, "2024-03-01T12:30"), "2024-03-01T11:00", []),
    ],
)
def test_day_windows(
    ticks: Schedule | None,
    backfill_from: str | None,
    held: dict[date, int],
    now: str,
    expected: list[str],
) -> None:
    """At every tick: days not pulled since they ended, since they settled, or at all."""
    asked = flow(windows="day", ticks=ticks, backfill_from=backfill_from)
    found = list(due(asked, Positions(None, None, held), ms(now), events_per_day=10))
    assert told(found) == expected
    assert all(item.window.before is None and item.window.arrival is None for item in found)


@pytest.mark.parametrize("ticks", [HOURLY, DAILY, schedule("minute", 15, "2024-03-01T00:00")])
@pytest.mark.parametrize("events_per_day", [None, 10.0])
def test_an_outage_costs_few_requests(ticks: Schedule, events_per_day: float | None) -> None:
    """After 30 days: one arrival window, and the fewest requests for the days that settled."""
    m = ms("2024-03-20T06:00")
    settled = pulled("2024-03-02", 13, "2024-03-20T06:00")
    positions = Positions(ms("2024-03-01T12:00"), m, settled)
    now = m + 30 * FULL_DAY + DELAY
    (first, *_) = due(flow(ticks=ticks), positions, now, events_per_day=events_per_day)
    assert first.window.arrival
    assert first.window.arrival[0] == m
    after = Positions(positions.start, first.window.arrival[1], settled)
    rest_of_it = list(due(flow(ticks=ticks), after, now, events_per_day=events_per_day))
    assert {item.why for item in rest_of_it} == {"settle"}
    assert len(rest_of_it) == (1 if events_per_day else 30)


@pytest.mark.parametrize(
    ("timezone", "now", "expected"),
    [
        ("America/Los_Angeles", "2024-03-01T06:00", "day 2024-02-29..2024-03-01"),
        ("Asia/Kolkata", "2024-03-01T19:00", "day 2024-03-01..2024-03-02"),
    ],
)
def test_day_windows_fit_both_time_zones(timezone: str, now: str, expected: str) -> None:
    """From the earlier day of the first tick to the later day of the last tick."""
    found = due(
        flow(timezone, windows="day", ticks=schedule("hour", 1, "2024-03-01T06:00")),
        NEW,
        ms(now),
        events_per_day=10,
    )
    assert told(list(found)) == [expected]
