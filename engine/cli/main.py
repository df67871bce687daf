"""The command line: which commands there are, and how a command ends.

A command parses its options, calls the core and prints the result. Exit status: 0 all runs
succeeded, 1 at least one failed, 2 the input is wrong and nothing was tried.
"""

import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from engine import __version__
from engine.cli import console, positions, rejects
from engine.cli.apply import apply
from engine.cli.backfill import backfill
from engine.cli.check import check
from engine.cli.console import PROGRAM, Invocation, print_message, print_result
from engine.cli.daemon import daemon
from engine.cli.demo import demo
from engine.cli.explore import explore
from engine.cli.plan import plan
from engine.cli.runs import runs
from engine.cli.sandbox import sandbox
from engine.cli.status import status
from engine.errors import sentence_of, status_of

INTERRUPTED = 130  # typer's exit status for a KeyboardInterrupt that no command caught
ENVIRONMENT = "MIXPANEL_USERNAME, MIXPANEL_PASSWORD (a service account), MIXPANEL_PROJECT_ID"

app = typer.Typer(
    name=PROGRAM,
    epilog=f"Reads the environment: {ENVIRONMENT}, MIXPANEL_HOST, MIXPANEL_TIMEZONE and "
    f"MIXPANEL_ETL_HOME.\n\nExample, without any account: {PROGRAM} demo",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command, example in (
    (backfill, "--from-date 2024-01-01 --to-date 2024-01-31 --workers 2"),
    (runs, "--status failed --limit 5"),
    (explore, "--from-date 2024-01-01 --limit 5"),
    (check, "--config flows.toml"),
    (demo, ""),
    (sandbox, "--port 8000 --events-per-day 100000"),
    (daemon, "--config flows.toml"),
    (apply, "flows.toml"),
    (plan, "--config flows.toml --flow events"),
    (status, "--config flows.toml"),
):
    app.command(epilog=f"Example: {PROGRAM} {command.__name__} {example}".rstrip())(command)
app.add_typer(positions.app)
app.add_typer(rejects.app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    console.open_streams()
    console.listen_to_signals()
    try:
        console.check_arguments(words)
        invocation = Invocation(debug, shlex.join([PROGRAM, *words]))
        exit_status = app(
            words or ["--help"], prog_name=PROGRAM, standalone_mode=False, obj=invocation
        )
        if exit_status == INTERRUPTED:
            exit_status = print_message("Stopped.", 1)
    except typer.TyperException as error:
        help_ = " ".join([PROGRAM, *_command_in(words), "--help"])
        message = console.shorten_words(error.format_message())
        end = "" if message.endswith((".", "?")) else "."
        exit_status = print_message(f"Error: {message}{end} See: {help_}", 2)
    except Exception as error:  # noqa: BLE001 - every other error becomes one sentence here
        if debug:
            traceback.print_exc()
        sentence = console.shorten_words(sentence_of(error))
        exit_status = print_message(f"Error: {sentence}", status_of(error))
    sys.exit(exit_status or 0)


def _command_in(words: Sequence[str]) -> list[str]:
    """Return the first words that name a command, with its group: ["rejects", "list"]."""
    command: Any = typer.main.get_command(app)
    names: list[str] = []
    for word in words:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        names.append(word)
    return names


def _print_version(wanted: bool) -> None:
    if wanted:
        print_result(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")
    ] = False,
) -> None:
    """Copies the raw events of a Mixpanel project into a Parquet table, complete and typed."""
