"""Run a command and measure its cost as the operating system accounts for it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
PROC = Path("/proc")
EVERY = 0.01  # seconds between two samples of the memory of all processes
LONGEST = 3600.0  # seconds; a command that takes longer is ended
LAST_WORDS = 12  # lines of a failed command's output


class Failed(Exception):
    """A command failed; the message names the command and how it ended.

    `said` is its own output: it is shown and not stored, since it may name files of this machine.
    """

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


@dataclass(frozen=True, slots=True)
class Spent:
    """The cost of a command: seconds on the clock, CPU seconds and peak MiB.

    `mib` is the peak of its largest process. `mib_together` is the peak of the sum of all its
    processes, if that was sampled; pages that several of them share count several times.
    """

    wall: float
    cpu: float
    mib: float
    mib_together: float | None
    said: str


def spend(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    folder: Path = ROOT,
    watch: bool = False,
    longest: float = LONGEST,
) -> Spent:
    """Run `command` in `folder` to its end; `watch` samples its memory. Raises Failed."""
    with tempfile.TemporaryDirectory() as place:
        cost, out, err = (Path(place) / name for name in ("cost", "out", "err"))
        launch = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py"))]
        with out.open("wb") as stdout, err.open("wb") as stderr:
            launcher = subprocess.Popen(
                [*launch, str(cost), *command],
                cwd=folder,
                env=_surroundings() | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # so that all its processes can be ended at once
            )
            with _ended_with(launcher), _watched(launcher.pid, watch=watch) as peak:
                try:
                    launcher.wait(longest)
                except subprocess.TimeoutExpired:
                    raise Failed(f"{_name(command)} did not end in {longest:g} s") from None
        if not cost.exists():
            raise Failed(f"{_name(command)} could not be started", _last_words(err))
        found = json.loads(cost.read_text("ascii"))
        if found["status"]:
            raise Failed(f"{_name(command)} {ending(found['status'])}", _last_words(err))
        mib = found["peak"] / MIB
        together = max(mib, peak[0] / MIB) if watch and peak else None
        said = out.read_text("utf-8", "replace")
    return Spent(found["wall"], found["cpu"], mib, together, said)


def _surroundings() -> dict[str, str]:
    """Return the environment with Python's bytecode cache on, as installed programs have it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def ending(status: int) -> str:
    """Describe how a process ended, by its exit code or minus the number of the signal."""
    if status >= 0:
        return f"ended with exit status {status}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name} ({-status})"
    return f"was ended by signal {-status}"


def _name(command: Sequence[str]) -> str:
    """Return the first words of a command, without the folders of its files."""
    words = takewhile(lambda word: not set(word) & set(" {"), command[:4])
    return " ".join(Path(word).name if word.startswith("/") else word for word in words)


def _last_words(path: Path) -> str:
    lines = path.read_text("utf-8", "replace").strip().splitlines()
    return "\n".join(lines[-LAST_WORDS:]) or "it said nothing"


@contextmanager
def _ended_with(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End all that `process` started when the body ends, even with an error."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _watched(pid: int, *, watch: bool) -> Iterator[list[int]]:
    """Yield a list with the largest sum of bytes so far; empty if it cannot be sampled."""
    peak: list[int] = []
    if not watch or not PROC.joinpath(str(pid), "task").is_dir():
        yield peak
        return
    peak.append(0)
    over = threading.Event()

    def sample() -> None:
        while not over.wait(EVERY):
            peak[0] = max(peak[0], sum(resident(each) for each in descendants(pid)))

    thread = threading.Thread(target=sample, name="watch", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def descendants(pid: int) -> Iterator[int]:
    """Return the processes that `pid` started, and those that they started.

    A child that has not started its own program yet is left out: until then it shares the memory
    of its parent.
    """
    with suppress(OSError):  # the process has just ended
        program = _command(pid)
        for task in PROC.joinpath(str(pid), "task").iterdir():
            for child in map(int, task.joinpath("children").read_text().split()):
                if _command(child) != program:
                    yield child
                    yield from descendants(child)


def _command(pid: int) -> bytes:
    return PROC.joinpath(str(pid), "cmdline").read_bytes()


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds now."""
    with suppress(OSError):
        pages = int(PROC.joinpath(str(pid), "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0
