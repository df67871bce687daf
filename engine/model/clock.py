"""The time: that of the machine or, to simulate months, of a clock that runs faster."""

import time
from dataclasses import dataclass


def now() -> int:
    """Return the machine's time, in ms since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Clock:
    """Runs `speed` times as fast as the machine's clock and shows `first` at its `began`, in ms."""

    began: int = 0
    first: int = 0
    speed: float = 1

    def now(self) -> int:
        """Return the time, in ms since the epoch."""
        return self.first + int((now() - self.began) * self.speed)

    def machine(self, moment: int) -> int:
        """Return what the machine's clock shows at `moment`, both in ms since the epoch."""
        return self.began + int((moment - self.first) / self.speed)


def duration(seconds: float) -> str:
    """Format a duration."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
