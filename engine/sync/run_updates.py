"""What a runner reports while it works, a value each. Pure data."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from engine.errors import EtlError
from engine.model.flow import Flow, Run
from engine.model.run_record import RunRecord
from engine.model.window import Window, consecutive

SHOWN = 3  # spans of days, or names of events, in a sentence


@dataclass(frozen=True, slots=True)
class Advanced:
    """A run has read so many lines and decompressed bytes so far."""

    run_id: str
    lines: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run cannot make its request for so many seconds."""

    run: Run
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A run ended, with `error` if it failed.

    `empty`: the days, over by now, of which Mixpanel sent no event.
    """

    record: RunRecord
    error: EtlError | None
    empty: tuple[date, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """A window failed, and its days are requested again in smaller windows."""

    run: Run
    error: EtlError


@dataclass(frozen=True, slots=True)
class NoEvents:
    """Mixpanel sent no event of these days; `all`: no other days were pulled."""

    flow: Flow
    days: Sequence[date]
    all: bool

    def __str__(self) -> str:
        """Return a sentence with the possible causes."""
        flow = self.flow
        runs = consecutive(self.days)
        spans = _some([str(Window(run[0], run[-1])) for run in runs], ", ")
        said = f"Mixpanel has no event of {spans}"
        filters = "with your filter" if flow.where else "without a filter"
        if flow.events and self.all:
            which = _some([name[:100] for name in flow.events], " or ")
            these = "this day" if len(self.days) == 1 else "these days"
            said = f"No event is called {which} on {these}. Mixpanel has none of {spans}"
        elif flow.events:
            filters = f"of your events, {filters}"
        return (
            f"{said} ({flow.connection.host}, project {flow.connection.project_id}, {filters}). "
            "If there should be some, check the region, the project, the filter and the dates."
        )


def _some(texts: Sequence[str], between: str) -> str:
    more = len(texts) - SHOWN
    return between.join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class DaysDue:
    """So many of the requested days are pulled now: the others are complete in the table."""

    days: int


@dataclass(frozen=True, slots=True)
class GaveUp:
    """So many days were not tried, after a failure that no other window would escape."""

    days: int


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something was damaged or changed by another program; `text` says what is done about it."""

    text: str


RunUpdate = DaysDue | Advanced | Waiting | Ended | Split | NoEvents | GaveUp | Noticed
