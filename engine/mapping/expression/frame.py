"""The records that an expression is evaluated for, with the count of its work, and failures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.mapping.expression.nodes import Node
from engine.mapping.expression.values import TransformError, measure

MOST_WORK = 10_000_000  # units that the expressions of a set may take for one record
STEP = 50  # units of one operation or call, besides one for each character and element

Column = list[Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """Stands for a value that could not be computed, and says why."""

    reason: str


SPENT = Failed(f"the expressions take more than {MOST_WORK:,} units of work")


@dataclass(slots=True)
class Frame:
    """The records that an expression is evaluated for.

    `now` is when the run began, in ms since the epoch; `lines` are the records' own bytes; `seed`
    is what `uuid()` is derived from besides. `work` counts the units of work of each record, by its
    `origin`: the count is the same in whatever batch a record is.
    """

    properties: Sequence[dict[str, Any]]
    events: Sequence[Any]
    lines: Sequence[bytes] = ()
    now: int = 0
    seed: bytes = b""
    parameters: dict[str, Column] = field(default_factory=dict)
    origin: list[int] = field(default_factory=list)
    work: list[int] = field(default_factory=list)
    known: dict[Node, Column] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.origin:
            self.origin = list(range(len(self.properties)))
            self.work = self.work or [0] * len(self.properties)

    def __len__(self) -> int:
        return len(self.properties)

    def of(self, rows: Sequence[int], parameters: dict[str, Column] | None = None) -> "Frame":
        """Return the frame of some rows, each as often as it is listed; with more `parameters`."""
        taken = {name: [column[row] for row in rows] for name, column in self.parameters.items()}
        return replace(
            self,
            properties=[self.properties[row] for row in rows],
            events=[self.events[row] for row in rows],
            lines=[self.lines[row] for row in rows] if self.lines else (),
            parameters=taken | (parameters or {}),
            origin=[self.origin[row] for row in rows],
            known={},
        )

    def spend(self, row: int, units: int) -> None:
        """Count the work of a row; raise TransformError beyond MOST_WORK of its record."""
        origin = self.origin[row]
        self.work[origin] += units
        if self.work[origin] > MOST_WORK:
            raise TransformError(SPENT.reason)

    def is_spent(self, row: int) -> bool:
        """Return whether the record of a row has had more than MOST_WORK: nothing else is done."""
        return self.work[self.origin[row]] > MOST_WORK

    def each(
        self,
        code: Callable[..., Any],
        *columns: Column,
        step: int = STEP,
        work: Callable[..., int] | None = None,
    ) -> Column:
        """Return `code` of each row of the columns; a failed argument makes a failed result.

        A row counts `step` units, those of its arguments and result, and those that `work` says.
        """
        found: Column = []
        for row, arguments in enumerate(zip(*columns, strict=True)):
            if self.is_spent(row):
                found.append(SPENT)
                continue
            try:
                units = step
                for value in arguments:
                    kind = type(value)
                    if kind is str:
                        units += len(value)
                    elif kind is dict or kind is list:
                        units += measure(value)
                    elif kind is Failed:
                        break
                else:
                    self.spend(row, units + work(*arguments) if work else units)
                    value = code(*arguments)
                    kind = type(value)
                    if kind is str:
                        self.spend(row, len(value))
                    elif kind is dict or kind is list:
                        self.spend(row, measure(value))
                found.append(value)
            except TransformError as error:
                found.append(Failed(str(error)))
        return found
