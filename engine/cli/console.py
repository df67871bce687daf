"""How a command is spoken to, how it speaks and how it ends: the options that several commands
have, streams, signals, sentences, exit statuses.

Answers go to stdout, the rest to stderr. It knows no command.
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
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import EtlError, InputError

TIDYING = 5  # seconds in which a second Ctrl-C is not heard

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A configuration file (TOML).")
]
FlowName = Annotated[
    str | None, typer.Option("--flow", metavar="NAME", help="A flow of the configuration.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


def say(text: str, status: int = 0) -> int:
    """Print `text` on stderr; gives `status` back."""
    with suppress(OSError):  # nobody listens: no reason to end otherwise than meant
        typer.echo(text, err=True)
    return status


def answer(text: str | bytes) -> None:
    """Print `text` on stdout, for as long as somebody reads there."""
    with answering():
        typer.echo(text)


def answer_json(value: Any) -> None:
    """Print `value` in UTF-8; half a surrogate pair, which UTF-8 cannot hold, in JSON's escape."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    answer(text.encode("utf-8", "backslashreplace"))


@contextmanager
def answering() -> Iterator[None]:
    """Around what prints on stdout: who reads no further, as `head` does, is not an error."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # what is still to come goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise EtlError(f"The answer cannot be printed ({error.strerror}).") from error


def open_streams() -> None:
    """Make stdout and stderr take every text, also where they were closed by who started us."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - it lives as long as the program
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def listen_to_signals() -> None:
    """P8: SIGTERM means what Ctrl-C means; an impatient second one does not cut the tidying off."""
    heard = float("-inf")

    def stop(*_: object) -> None:
        nonlocal heard
        if time.monotonic() - heard > TIDYING:
            heard = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def refuse(words: Sequence[str]) -> None:
    """Raise InputError for words that no command may see."""
    for word in words:
        # P7: what stands on a command line stands in every process list and shell history.
        if re.match(r"--?(pass|pw|secret)|\w*(password|secret)=", word, re.I):
            raise InputError(
                "A password on the command line can be read by everyone on this machine. Put it in "
                "the environment variable MIXPANEL_PASSWORD, or in a file that the configuration "
                "names."
            )
    for word in words:
        shown = word.encode("utf-8", "backslashreplace").decode()
        if shown != word:
            raise InputError(f'"{shown}" is not UTF-8: check the encoding of your terminal.')


def with_tracebacks(show: Callable[[Any], None]) -> Callable[[Any], None]:
    """Shows as `show` does; where a run failed, also how it came to that."""

    def tell(event: Any) -> None:
        show(event)
        if error := getattr(event, "error", None):
            traceback.print_exception(error)

    return tell


def shortened(text: str) -> str:
    """`text` without the middle of every word in it that nobody would read to its end."""
    return re.sub(r"(\S{150})\S{100,}(\S{50})", r"\1…\2", text)
