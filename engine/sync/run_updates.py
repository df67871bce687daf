"""What a runner reports while it works, a value each. Pure data."""

from dataclasses import dataclass
from datetime import date

from engine.errors import EtlError
from engine.model.flow import Flow, Run
from engine.model.run_record import RunRecord


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
    days: list[date]
    all: bool


@dataclass(frozen=True, slots=True)
class GaveUp:
    """So many days were not tried, after a failure that no other window would escape."""

    days: int


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something was damaged or changed by another program; `text` says what is done about it."""

    text: str


RunUpdate = Advanced | Waiting | Ended | Split | NoEvents | GaveUp | Noticed
