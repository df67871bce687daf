"""What time it is: as the machine says or, for a trial of months, by a clock that runs faster."""

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """From the machine's `began` on it runs `speed` times as fast, from `first`; both in ms."""

    began: int = 0
    first: int = 0
    speed: float = 1

    def now(self) -> int:
        """The time, in ms since the epoch."""
        return self.first + int((time.time_ns() // 1_000_000 - self.began) * self.speed)

    def machine(self, moment: int) -> int:
        """What the machine's own clock shows at `moment`, both in ms since the epoch."""
        return self.began + int((moment - self.first) / self.speed)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
