"""The positions of a flow, which only the Delta `txn` entries of its table hold.

    <flow>/<day>      up to which moment the day was last pulled whole
    <flow>/arrival    the high watermark: the end of the last arrival window
    <flow>/start      the start of the first arrival window
    <flow>/doubtful   until then the table may hold more than the high watermark says: a wrong one
                      was corrected at that moment
    forgotten/…       that a day's position was reset, by `Dataset.forget`

Moments in ms since the epoch. A position counts as long as the table holds the rows that were
committed with it: see `day_changes`. What a commit sets and replaces is decided here, so that
nothing is missing between arrival windows and days, and nothing is in both (P4).
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import date

from engine.dataset import single_days
from engine.dataset.dataset import Dataset
from engine.dataset.day_changes import Change
from engine.dataset.table import DayContents
from engine.errors import DatasetError, InputError
from engine.model import due_windows, schedule
from engine.model.due_windows import Positions
from engine.model.flow import Flow, Run
from engine.model.window import DAY, Window, each_day, is_day, latest_day, utc

ARRIVAL, START, DOUBTFUL = "arrival", "start", "doubtful"


def app_id(flow: Flow, what: date | str) -> str:
    """Return the app id of the flow's position `what`: of a day, ARRIVAL, START or DOUBTFUL."""
    return f"{flow.name}/{what}"


def pulled(dataset: Dataset) -> Counter[str]:
    """Return the sum of each day's positions in all flows, which each pull of it increases."""
    sums = Counter[str]()
    for name, version in dataset.positions.items():
        sums[name.rpartition("/")[2]] += version
    return sums


def undone(
    flow: Flow, dataset: Dataset, days: Collection[date] | None = None
) -> dict[date, Change]:
    """Return the days of `flow`, or of `days`, that lost rows after their commit (P10)."""
    names = dataset.positions
    ours = flow.windows == "arrival" or app_id(flow, ARRIVAL) in names
    return {
        day: each
        for day, each in dataset.changes(days).items()
        if each.undone and (ours or app_id(flow, day) in names)
    }


def read(flow: Flow, dataset: Dataset, now: int) -> Positions:
    """Return the positions of `flow` at `now`, in ms, which the table alone holds."""
    start, arrival, doubtful = (
        dataset.position(app_id(flow, name)) for name in (START, ARRIVAL, DOUBTFUL)
    )
    zone = flow.connection.zone
    begins = [now - 2 * flow.lookback_days * schedule.FULL_DAY]
    begins += [start] if start is not None else []
    if flow.schedule and flow.schedule.start_time:
        begins += [flow.schedule.start_time * schedule.SECOND]
    first = latest_day(min(begins), zone) - 2 * DAY
    if flow.backfill_from:
        first = min(first, flow.backfill_from)
    days = {*each_day(first, latest_day(now, zone))}
    known = dataset.positions  # the log is read once for all; empty if only deltalake can read it
    of_flow = (name.removeprefix(f"{flow.name}/") for name in known)
    days |= {date.fromisoformat(name) for name in of_flow if is_day(name)}  # of a backfill
    position = known.get if known else dataset.position
    pulled = {day: position(app_id(flow, day)) for day in days}
    lost = undone(flow, dataset)
    # A position in the future was noted before the clock was set back: when is unknown.
    counted = {
        day: due_windows.UNKNOWN if schedule.is_later(at, now) else at
        for day, at in sorted(pulled.items())
        if at and day not in lost
    }
    return Positions(
        start,
        arrival,
        counted,
        min(doubtful or 0, now),
        frozenset(lost),
        single_days.begin(dataset),
        tuple(day for day in single_days.misfiled(dataset) if day not in lost),
    )


def _reached(flow: Flow, dataset: Dataset) -> Iterator[int]:
    """Yield the high watermark and the days' positions, in ms."""
    for name, moment in dataset.positions.items():
        owner, _, what = name.rpartition("/")
        if owner == flow.name and (what == ARRIVAL or is_day(what)):
            yield moment


def left(dataset: Dataset, day: date, becomes: Mapping[str, int]) -> int:
    """Return the sum of a day's positions after a commit that sets `becomes`."""
    ours = (name for name in becomes if name.rpartition("/")[2] == day.isoformat())
    more = sum(becomes[name] - (dataset.position(name) or 0) for name in ours)
    return pulled(dataset)[day.isoformat()] + more


def check_owner(flow: Flow, dataset: Dataset) -> None:
    """Raise InputError if two flows would fill the table, one of them by arrival windows (P4)."""
    ours = (flow.name, f"forgotten/{flow.name}")
    found = [name.rpartition("/")[::2] for name in dataset.positions]
    owners = {name for name, what in found if what == ARRIVAL}
    if owners and flow.name not in owners:
        raise InputError(
            f'The table {dataset.root} is filled by the flow "{min(owners)}", as events '
            "arrive. Let that flow pull them, or use another dataset."
        )
    others = {name for name, what in found if is_day(what) and name not in ours}
    if flow.windows == "arrival" and others and not owners:
        raise InputError(
            f'The table {dataset.root} has days that the flow "{min(others)}" pulled: '
            "arrival windows would bring their events again. Give this flow that name, or "
            "another dataset."
        )


def _check_wrong(reached: int | None, window: Window, now: int) -> None:
    """Raise DatasetError unless a clock that was ahead has set the high watermark `reached`."""
    if reached is not None and not schedule.is_later(reached, now):
        raise DatasetError(
            f"This machine's clock is behind Mixpanel's: {window} was asked for again, and the "
            "table rightly holds more than that. Nothing was changed; set the clock right."
        )


def replaced(flow: Flow, dataset: Dataset, window: Window, now: int) -> dict[date, DayContents]:
    """Return what the commit of the window replaces; `now`, in ms, by Mixpanel's clock if known.

    DatasetError if the high watermark was moved since the window was planned: the commit would
    leave events out, or add them a second time (P4).
    """
    reached = dataset.position(app_id(flow, ARRIVAL))
    begins = window.arrival[0] if window.arrival else window.before
    if window.again:
        _check_wrong(reached, window, now)
        return {}
    if reached is not None and window.before is not None and schedule.is_later(reached, now):
        raise DatasetError(
            f"The table {dataset.root} says that it holds what arrived until {utc(reached)}, which "
            f"is later than Mixpanel's clock, {utc(now)}: this machine's was ahead. Nothing was "
            "committed; once it is right, the flow's next arrival window puts that right."
        )
    if begins is not None and reached not in (begins, None):
        raise DatasetError(
            f"The table {dataset.root} was changed by another program while {window} was "
            "pulled. Nothing was committed; the next run starts from what it holds now."
        )
    return {} if window.arrival else dataset.held(window.days)


def after(flow: Flow, dataset: Dataset, run: Run, now: int, *, sure: bool) -> dict[str, int]:
    """Return the positions that the commit of a run sets (P2).

    `now`, in ms, is by Mixpanel's clock if that is `sure`: no day was pulled later, whatever this
    machine's clock says. A later position was set by a clock that was ahead, and is corrected.
    """
    if run.window.arrival:
        start, end = run.window.arrival
        names = {ARRIVAL: end}
        began = dataset.position(app_id(flow, START))
        if began is None or (run.window.again and began >= end):
            names[START] = start
        if run.window.again:  # no event of the table was processed later
            names[DOUBTFUL] = now if sure else max([now, *_reached(flow, dataset)])
        return {app_id(flow, name): moment for name, moment in names.items()}
    before = run.window.before
    reached = min(run.started_at, now) if before is None else before
    names = {}
    for name in (app_id(flow, day) for day in run.window.days):
        held = dataset.position(name) or 0
        names[name] = max(reached, held + 1)
        if schedule.is_later(held, now):
            names[name] = reached
            mark = f"forgotten/{name}"  # so that an earlier sum of positions does not return
            names[mark] = (dataset.position(mark) or 0) + held - reached + 1
    arrival = app_id(flow, ARRIVAL)
    if before is not None and dataset.position(arrival) is None:
        names |= {arrival: before, app_id(flow, START): before}
    return names
