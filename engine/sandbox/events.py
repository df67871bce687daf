"""Generate seeded events: any day alone, at any volume, the same bytes each time.

Pure: it knows no clock, no file and no server. Variants of each kind of event are rendered once;
an event is a variant with five values of its own filled in.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.model.window import DAY, day_start
from engine.sandbox import event_shapes

CHUNK = 2048  # events drawn at a time
USERS = 4096
HOUR_MS = 3_600_000
QUARTER_MS = 900_000  # no zone has shifted by less since 1972

SLOTS = ((b'"<time>"', b"%d"), (b'"<user>"', b'"%s"'), (b'"<insert>"', b'"%s"'),
         (b'"<api>"', b"%d"), (b'"<processed>"', b"%d"))  # fmt: skip
LATEST = "mp_processing_time_ms"
UNUSED = b"%.0a"  # formats a value to nothing

Record = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """The events of the sandbox's project. Percentages are of a day's events, and exact.

    seed, shape         which events: "small", "wide", "typed" or "mixed"
    events_per_day      distinct events of every day that `volumes` does not name
    weekend_percent     of `events_per_day`, on Saturdays and Sundays
    duplicate_percent   events with a second copy, processed at another moment
    reject_percent      events whose `time` is missing or a word, against the tutorial's schema
    lag_minutes         how long after `mp_processing_time_ms` an event is seen at the earliest,
    lag_percent         of these events
    late_percent        events that arrive two hours to `late_days` days after they happened
    clock               "utc": days and `time` in UTC; "local": an older project, whose days are
                        those of `timezone` and whose `time` is its wall clock as epoch seconds;
                        "days": its days are those of `timezone`, and `time` is in UTC
    """

    seed: int = 1
    events_per_day: int = 1000
    shape: str = "mixed"
    duplicate_percent: float = 1.0
    reject_percent: float = 0.0
    late_percent: float = 2.0
    lag_minutes: float = 0.0
    lag_percent: int = 100
    late_days: int = 5
    weekend_percent: int = 100
    clock: str = "utc"
    timezone: str = "America/Los_Angeles"
    volumes: Mapping[date, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.shape not in event_shapes.SHAPES:
            raise ValueError(f"shape {self.shape!r} is none of {', '.join(event_shapes.SHAPES)}")
        if self.clock not in ("utc", "local", "days"):
            raise ValueError(f"clock {self.clock!r} is none of utc, local, days")

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which the project's days are counted."""
        return ZoneInfo("UTC" if self.clock == "utc" else self.timezone)

    def events_on(self, day: date) -> int:
        """Distinct events of `day`, rejects included."""
        percent = self.weekend_percent if day.weekday() >= 5 else 100
        return self.volumes.get(day, self.events_per_day * percent // 100)

    def settled_ms(self, day: date) -> int:
        """A moment, in ms since the epoch, from which on no event of `day` arrives."""
        late = self.late_days * 24 * HOUR_MS if self.late_percent else 0
        return day_start(day + DAY, self.zone) + late + 6 * HOUR_MS + self.lag_ms

    @property
    def lag_ms(self) -> int:
        """`lag_minutes` in ms."""
        return int(self.lag_minutes * 60_000)


@dataclass(frozen=True)
class Truth:
    """What a pull of a day should give: lines == len(events) + len(rejects) + duplicates."""

    lines: int
    events: list[Record]
    rejects: list[bytes]
    duplicates: int


@dataclass(frozen=True)
class Variants:
    """The rendered variants of a shape; equal indexes are the same variant."""

    lines: list[bytes]  # format strings
    broken: list[bytes]  # the same with a missing or unreadable `time`
    partners: NDArray[np.int64]  # a variant with the same key properties
    mergeable: NDArray[np.bool_]  # has an `$insert_id`


def render(event: str, properties: Record) -> bytes:
    """The event as a format string; keys in Mixpanel's order: time, distinct_id, then sorted."""
    first = [key for key in ("time", "distinct_id") if key in properties]
    keys = first + sorted(properties.keys() - set(first))
    record = {"event": event, "properties": {key: properties[key] for key in keys}}
    line, at = orjson.dumps(record).replace(b"%", b"%%"), 0
    for slot, shown in SLOTS:
        found = line.find(slot, at)
        start, end = (found, found + len(slot)) if found >= 0 else (at, at)
        filler = shown if found >= 0 else UNUSED
        line = line[:start] + filler + line[end:]
        at = start + len(filler)
    return line + b"\n"


@lru_cache(maxsize=8)
def variants(seed: int, shape: str) -> Variants:
    """Render every variant of `shape`."""
    random = Random(f"{seed}/{shape}")  # noqa: S311  seeded test data, no secret
    drawn = [kind(random) for kind, count in event_shapes.SHAPES[shape] for _ in range(count)]
    broken: list[bytes] = []
    groups: dict[Any, list[int]] = {}
    for index, (event, properties) in enumerate(drawn):
        rest = {key: value for key, value in properties.items() if key != "time"}
        broken.append(render(event, rest | {"time": "yesterday"} if index % 2 else rest))
        key = (event, properties.get("distinct_id"), properties.get("$insert_id"))
        groups.setdefault(key, []).append(index)
    partners = np.arange(len(drawn))
    for members in groups.values():
        partners[members] = np.roll(members, 1)
    return Variants(
        [render(event, properties) for event, properties in drawn],
        broken,
        partners,
        np.array(["$insert_id" in properties for _, properties in drawn]),
    )


@lru_cache(maxsize=8)
def user_ids(seed: int) -> list[bytes]:
    """The distinct ids of the project's users: mail addresses and UUIDs."""
    random = Random(f"{seed}/users")  # noqa: S311  seeded test data, no secret
    return [
        b"test%d@test.com" % index if index % 2 else b"%032x" % random.getrandbits(128)
        for index in range(USERS)
    ]


@lru_cache(maxsize=64)
def wall_clock_shift(zone: ZoneInfo, day: date) -> NDArray[np.int64]:
    """Ms from an instant of `day` to its wall clock time, for each quarter of an hour."""
    quarters = range(day_start(day, zone), day_start(day + DAY, zone), QUARTER_MS)
    shifts = [datetime.fromtimestamp(at / 1000, zone).utcoffset() for at in quarters]
    return np.array([(shift or timedelta()) // timedelta(milliseconds=1) for shift in shifts])


def insert_ids(rng: np.random.Generator, count: int) -> list[bytes]:
    """Draw `count` UUIDs."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[rng.integers(0, 16, (count, 36))]
    digits[:, [8, 13, 18, 23]] = ord("-")
    ids: list[bytes] = np.ascontiguousarray(digits).view("S36").ravel().tolist()
    return ids


def share(percent: float, start: int, count: int) -> int:
    """How many of the events `start` to `start + count` are drawn, so that a day's sum is exact."""
    return round((start + count) * percent / 100) - round(start * percent / 100)


def chunk_lines(
    spec: Spec, day: date, start: int, count: int, *, visible_at: int | None, in_ms: bool
) -> tuple[list[bytes], list[bytes], np.random.Generator]:
    """Lines of the day's events `start` to `start + count`, and the second copies of some."""
    rng = np.random.default_rng([spec.seed, day.toordinal(), start])
    known, users = variants(spec.seed, spec.shape), user_ids(spec.seed)
    kinds = rng.integers(0, len(known.lines), count)
    day_begins = day_start(day, spec.zone)
    happened = day_begins + rng.integers(0, day_start(day + DAY, spec.zone) - day_begins, count)
    times = happened
    if spec.clock == "local":
        times = times + wall_clock_shift(spec.zone, day)[(happened - day_begins) // QUARTER_MS]
    if not in_ms:
        times = times // 1000
    late = rng.random(count) * 100 < spec.late_percent
    lateness = rng.integers(2 * HOUR_MS, max(spec.late_days * 24, 3) * HOUR_MS, count)
    received = happened + rng.integers(50, 30_000, count) + late * lateness
    processed = received + rng.integers(20, 900, count)
    user = [users[index] for index in rng.integers(0, USERS, count).tolist()]
    insert_id = insert_ids(rng, count)

    order = rng.permutation(count)
    rejects = share(spec.reject_percent, start, count)
    broken = set(order[:rejects].tolist())
    again = order[rejects:][known.mergeable[kinds[order[rejects:]]]]
    again = again[: share(spec.duplicate_percent, start, count)]
    apart = rng.integers(1, 3 * HOUR_MS, len(again))
    first_wins = rng.random(len(again)) < 0.5
    copy_processed = processed[again] + np.where(first_wins, 0, apart)
    processed[again] += np.where(first_wins, apart, 0)
    changed = rng.random(len(again)) < 0.5
    copy_kinds = np.where(changed, known.partners[kinds[again]], kinds[again])

    rows = list(zip(times.tolist(), user, insert_id, received.tolist(), strict=True))
    latest = visible_at if visible_at is not None else 1 << 62
    picked, moments = kinds.tolist(), processed.tolist()
    lags = [spec.lag_ms if index % 100 < spec.lag_percent else 0 for index in range(count)]
    lines = [
        (known.broken if index in broken else known.lines)[picked[index]] % (*row, moments[index])
        for index, row in enumerate(rows)
        if moments[index] + lags[index] <= latest
    ]
    copies = [
        known.lines[kind] % (*rows[index], moment)
        for index, kind, moment in zip(
            again.tolist(), copy_kinds.tolist(), copy_processed.tolist(), strict=True
        )
        if moment + lags[index] <= latest
    ]
    return lines, copies, rng


def day_lines(
    spec: Spec, day: date, *, visible_at: int | None = None, in_ms: bool = False
) -> Iterator[bytes]:
    """The lines of `day` in blocks of many, each line with its line end, not ordered by time.

    visible_at   leave out events that Mixpanel processes after that moment, in ms since the epoch
    in_ms        `time` in milliseconds instead of seconds
    """
    total = spec.events_on(day)
    waiting: list[bytes] = []  # second copies come a chunk after the first
    for start in range(0, total, CHUNK):
        count = min(CHUNK, total - start)
        lines, copies, rng = chunk_lines(
            spec, day, start, count, visible_at=visible_at, in_ms=in_ms
        )
        if start + count == total:
            waiting, copies = waiting + copies, []
        for copy in waiting:
            lines.insert(int(rng.integers(0, len(lines) + 1)), copy)
        waiting = copies
        if lines:
            yield b"".join(lines)


def truth(spec: Spec, day: date, *, visible_at: int | None = None, in_ms: bool = False) -> Truth:
    """The rows of `day` that a table should hold at the moment `visible_at`.

    Records with equal (event, distinct_id, time, $insert_id) are one event: the one with the
    largest `mp_processing_time_ms` stays. Records without `$insert_id` are never merged.
    """
    whole = b"".join(day_lines(spec, day, visible_at=visible_at, in_ms=in_ms))
    lines = whole.removesuffix(b"\n").split(b"\n") if whole else []
    events: dict[Any, Record] = {}
    rejects = []
    for number, line in enumerate(lines):
        record: Record = orjson.loads(line)
        properties = record["properties"]
        if not isinstance(properties.get("time"), int):
            rejects.append(line)
            continue
        key: Any = number  # unlike that of any other line
        if properties.get("$insert_id") is not None:
            named = (properties.get(name) for name in ("distinct_id", "time", "$insert_id"))
            key = (record["event"], *named)
        if key not in events or events[key]["properties"][LATEST] < properties[LATEST]:
            events[key] = record
    duplicates = len(lines) - len(events) - len(rejects)
    return Truth(len(lines), list(events.values()), rejects, duplicates)
