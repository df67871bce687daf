"""Terminal I/O of all commands: stdout and stderr, signals, forbidden arguments.

Results go to stdout, messages to stderr. This module knows no command.
"""

import io
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import typer

from engine.errors import EtlError, InputError

PROGRAM = "mixpanel-etl"
SECOND_SIGNAL = 5  # seconds after a stop signal in which another one is ignored


class Invocation(NamedTuple):
    """What every command gets as `context.obj`.

    debug         whether to print tracebacks
    command_line  the command, quoted for a shell, to run it again
    """

    debug: bool
    command_line: str


def print_message(text: str, status: int = 0) -> int:
    """Print `text` on stderr and return `status`."""
    with suppress(OSError):  # a closed stderr does not change how the command ends
        typer.echo(text, err=True)
    return status


def print_result(text: str | bytes) -> None:
    """Print `text` on stdout."""
    with closed_stdout_allowed():
        typer.echo(text)


def print_json(value: Any) -> None:
    """Print `value` as JSON in UTF-8; a lone surrogate, which UTF-8 cannot hold, is escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print_result(text.encode("utf-8", "backslashreplace"))


@contextmanager
def closed_stdout_allowed() -> Iterator[None]:
    """Print to stdout inside this block: a reader that stops early, like `head`, is no error."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # discard everything that is printed from here on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise EtlError(f"The answer cannot be printed ({error.strerror}).") from error


def open_streams() -> None:
    """Make stdout and stderr accept every text, also if the parent process closed them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            devnull = Path(os.devnull).open("w")  # noqa: SIM115 - it lives as long as the program
            setattr(sys, name, devnull)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def listen_to_signals() -> None:
    """Raise KeyboardInterrupt on SIGTERM and SIGINT; a second one spares the clean-up (P8)."""
    last_signal = float("-inf")

    def stop(*_: object) -> None:
        nonlocal last_signal
        if time.monotonic() - last_signal > SECOND_SIGNAL:
            last_signal = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise InputError for an argument that looks like a password or is not UTF-8."""
    for argument in arguments:
        # P7: a command line stands in every process list and shell history.
        if re.match(r"--?(pass|pw|secret)|\w*(password|secret)=", argument, re.I):
            raise InputError(
                "A password on the command line can be read by everyone on this machine. Put it in "
                "the environment variable MIXPANEL_PASSWORD, or in a file that the configuration "
                "names."
            )
    for argument in arguments:
        printable = argument.encode("utf-8", "backslashreplace").decode()
        if printable != argument:
            raise InputError(f'"{printable}" is not UTF-8: check the encoding of your terminal.')


def with_tracebacks(show: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a progress callback that calls `show` and prints the traceback of a failed run."""

    def show_with_traceback(event: Any) -> None:
        show(event)
        if error := getattr(event, "error", None):
            traceback.print_exception(error)

    return show_with_traceback


def shorten_words(text: str) -> str:
    """Cut the middle out of every word of `text` that has more than 300 characters."""
    return re.sub(r"(\S{150})\S{100,}(\S{50})", r"\1…\2", text)


def utc_minute(ms: int | None) -> str:
    """Format a moment in ms since the epoch as `2024-01-31 13:45`, in UTC; "-" for none."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%F %R}" if ms else "-"
