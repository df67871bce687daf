"""The records that an expression is evaluated for, and the value that says it failed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.mapping.expression.nodes import Node

Column = list[Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """Stands for a value that could not be computed, and says why."""

    reason: str


@dataclass(slots=True)
class Frame:
    """The records that an expression is evaluated for.

    `now` is when the run began, in ms since the epoch; `lines` are the records' own bytes; `seed`
    is what `uuid()` grows from besides. `work` counts for each record what lambdas visited.
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
        """The frame of some rows, each as often as it is named; with further `parameters`."""
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
