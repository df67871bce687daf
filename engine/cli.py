"""The commands. Each gathers its input, hands it to the core, and shows the answer.

Answers go to stdout, the rest to stderr. Exit status: 0 all runs succeeded, 1 at least one failed,
2 the input is wrong and nothing was tried. Heavy imports wait until a command needs them.
"""

import json
import os
import re
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from engine import __version__, config, given
from engine.errors import EtlError, InputError, disk_error
from engine.flow import Flow
from engine.window import DAY, Window, each_day

if TYPE_CHECKING:
    from engine.run import Rules

PROGRAM = "mixpanel-etl"
TIDYING = 5  # seconds in which a second Ctrl-C is not heard
INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt that no command caught
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

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A configuration file (TOML).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    for name in ("stdout", "stderr"):  # who started us may have closed them
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - it lives as long as the program
            setattr(sys, name, nowhere)
    _listen_to_signals()
    try:
        _refuse_password(words)
        again = shlex.join([PROGRAM, *words])
        status = app(
            words or ["--help"], prog_name=PROGRAM, standalone_mode=False, obj=(debug, again)
        )
        if status == INTERRUPTED:
            status = _say("Stopped.", 1)
    except typer.TyperException as error:
        commands = [
            command.callback.__name__ for command in app.registered_commands if command.callback
        ]
        help_ = [PROGRAM, *(word for word in words[:1] if word in commands), "--help"]
        message = error.format_message()
        end = "" if message.endswith((".", "?")) else "."
        status = _say(f"Error: {message}{end} See: {' '.join(help_)}", 2)
    except Exception as error:  # noqa: BLE001 - all that is left becomes a sentence, here only
        if debug:
            traceback.print_exc()
        status = _say(f"Error: {_sentence(error)}", _status(error))
    sys.exit(status or 0)


def _say(text: str, status: int) -> int:
    typer.echo(text, err=True)
    return status


def _status(error: Exception) -> int:
    return 2 if isinstance(error, InputError) else 1


def _sentence(error: Exception) -> str:
    if isinstance(error, EtlError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'The system'}: {error.strerror}."
    # P7: nobody knows what an unforeseen message holds.
    return (
        f"mixpanel-etl met with something that it does not expect ({type(error).__name__}). "
        "This is a defect: run it again with --debug, and report what that shows."
    )


def _listen_to_signals() -> None:
    """P8: SIGTERM means what Ctrl-C means; an impatient second one does not cut the tidying off."""
    heard = float("-inf")

    def stop(*_: object) -> None:
        nonlocal heard
        if time.monotonic() - heard > TIDYING:
            heard = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _refuse_password(words: Iterable[str]) -> None:
    """P7: what stands on a command line stands in every process list and shell history."""
    if any(re.match(r"--?(pass|pw|secret)|\w*(password|secret)=", word, re.I) for word in words):
        raise InputError(
            "A password on the command line can be read by everyone on this machine. Put it in the "
            "environment variable MIXPANEL_PASSWORD, or in a file that the configuration names."
        )


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")
    ] = False,
) -> None:
    """Copies the raw events of a Mixpanel project into a Parquet table, complete and typed."""


@app.command(
    epilog=f"Example: {PROGRAM} backfill --from-date 2024-01-01 --to-date 2024-01-31 --workers 2"
)
def backfill(
    context: typer.Context,
    from_date: Annotated[str, typer.Option(metavar="D", help="The first day, as 2024-01-31.")],
    to_date: Annotated[str, typer.Option(metavar="D", help="The last day, inclusive.")],
    dataset: Annotated[
        str | None, typer.Option(metavar="URI", help=f"The table. Default: {given.DEFAULT_DATASET}")
    ] = None,
    config_file: ConfigFile = None,
    flow: Annotated[
        str | None, typer.Option(metavar="NAME", help="A flow of the configuration.")
    ] = None,
    mapping: Annotated[
        str | None, typer.Option(metavar="X", help="A shipped mapping set, or a path.")
    ] = None,
    schema: Annotated[
        str | None, typer.Option(metavar="X", help="A shipped schema, or a path.")
    ] = None,
    event: Annotated[
        list[str] | None, typer.Option(metavar="E", help="Only this event; may be repeated.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Only events for which this holds.")
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, max=100, help="Processes that pull at a time.")
    ] = 1,
    days_per_request: Annotated[
        str, typer.Option(metavar="N|auto", help="Days in one request.")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Pull complete days again.")] = False,
    allow_shrink: Annotated[
        bool, typer.Option("--allow-shrink", help="A day may lose many of its rows.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its requests; ask nothing.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Pull days into a table. Those that are complete in it are skipped."""
    if dry_run and as_json:
        raise InputError("--json prints runs, and --dry-run makes none: leave one of them out.")
    chosen, home = given.flow_of(config_file, flow)
    changes = {"dataset": dataset, "mapping": mapping, "schema": schema, "where": where}
    named: dict[str, Any] = {name: text for name, text in changes.items() if text is not None}
    for option, text in [*named.items(), *(("event", name) for name in event or [])]:
        if not text.strip():
            raise InputError(f"--{option} is empty. Leave it out, or say what it should be.")
    chosen = replace(chosen, **named | ({"events": tuple(event)} if event else {}))
    zone = chosen.connection.zone
    first, last = given.day("--from-date", from_date, zone), given.day("--to-date", to_date, zone)
    if first > last:
        raise InputError(f"--from-date {first} is after --to-date {last}. Swap them.")
    days, size = list(each_day(first, last)), given.days_per_request(days_per_request)
    rules = given.rules_of(chosen)
    if dry_run:
        return _dry_run(chosen, rules, days, size, force=force)
    options = {"workers": workers, "days_per_request": size}
    options |= {"force": force, "allow_shrink": allow_shrink}
    return _backfill(context, chosen, rules, home, days, options, as_json=as_json)


def _backfill(
    context: typer.Context,
    flow: Flow,
    rules: "Rules",
    home: Path,
    days: list[date],
    options: dict[str, Any],
    *,
    as_json: bool,
) -> int:
    from engine.backfill import Backfill, Options, missing_days
    from engine.catalog import Catalog
    from engine.report import FAILED, envelope
    from engine.stages.export import url
    from engine.terminal import progress, summary

    url(flow.connection, Window(days[0], days[-1]))  # a host that nobody can ask is wrong input
    debug, again = context.obj
    table = given.dataset_of(flow, rules)
    due = days if options["force"] else missing_days(flow, table, days)
    show = progress(len(due))
    tell = _with_tracebacks(show) if debug else show
    with Catalog(home) as catalog:
        job = Backfill(flow, rules, table, catalog, Options(**options), tell)
        try:
            with show:
                items = job.run(days)
        except KeyboardInterrupt:
            return _say(
                f"Stopped. {job.committed} of {len(days)} days are committed and stay; nothing "
                f"is half done. To go on: {again}",
                1,
            )
    if as_json:
        _print_json(envelope(items))
    else:
        typer.echo(summary(items, len(days), flow.dataset))
    failed = [i for i in items if i["metrics"]["statusSummary"]["status"] == FAILED]
    return 1 if failed else 0


def _with_tracebacks(show: Callable[[Any], None]) -> Callable[[Any], None]:
    """Shows as `show` does; where a run failed, also how it came to that."""

    def tell(event: Any) -> None:
        show(event)
        if error := getattr(event, "error", None):
            traceback.print_exception(error)

    return tell


def _dry_run(flow: Flow, rules: "Rules", days: list[date], size: int | None, *, force: bool) -> int:
    from engine import plan
    from engine.backfill import missing_days
    from engine.stages.export import url

    due = days if force else missing_days(flow, given.dataset_of(flow, rules), days)
    typer.echo(f"Days: {len(days)} asked for, {len(days) - len(due)} complete already.")
    fewest, most = plan.request_range(due, size)
    requests = f"{most}" if fewest == most else f"{fewest} to {most}"
    typer.echo(f"Requests: {requests}. Mixpanel allows a project 60 an hour.")
    if fewest != most:
        typer.echo("How many days go into one is learned from the first answers; at the most:")
    while due:
        window = plan.next_window(due, None, size or 1)
        due = [day for day in due if day > window.to_date]
        typer.echo(f"GET {url(flow.connection, window, flow.events, flow.where)}")
    return 0


@app.command(epilog=f"Example: {PROGRAM} runs --status failed --limit 5")
def runs(
    flow: Annotated[str | None, typer.Option(metavar="NAME", help="Of this flow only.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="S", help="success, failed or inProgress.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The history of runs, the newest first."""
    from engine.catalog import Catalog
    from engine.report import FAILED, IN_PROGRESS, SUCCESS, envelope
    from engine.terminal import history

    if status is not None:
        status = given.one_of("--status", status, (SUCCESS, FAILED, IN_PROGRESS))
    with Catalog(config.home(os.environ)) as catalog:
        if as_json:
            _print_json(envelope(catalog.runs(flow, status, limit)))
        elif entries := catalog.history(flow, status, limit=limit):
            history(entries)
        else:
            _say(f"No such runs in {catalog.path}. MIXPANEL_ETL_HOME says where to look.", 0)


@app.command(epilog=f"Example: {PROGRAM} explore --from-date 2024-01-01 --limit 5")
def explore(
    from_date: Annotated[
        str | None, typer.Option(metavar="D", help="The day to look at. Default: yesterday.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Events.")] = 10,
) -> None:
    """A few events of a day, and the schema that fits them."""
    from engine.explore import response

    flow, home = given.flow_of(None, None)
    zone = flow.connection.zone
    day = given.day("--from-date", from_date, zone) if from_date else given.latest(zone) - DAY
    records = _sample(flow, home, day, limit)
    if not records:
        _say(f"Mixpanel has no events of {day}.", 0)
    _print_json(response(records))


@app.command(epilog=f"Example: {PROGRAM} check --config flows.toml")
def check(config_file: ConfigFile = None) -> int:
    """Everything that can be wrong, at once: from file to table."""
    flows, home = given.flows_of(config_file)
    asked, failures = set(), list[EtlError]()

    def look(flow: Flow, what: str, test: Callable[[], Any]) -> Any:
        """What `test` returns; None, and its error told, if it fails."""
        try:
            found = test()
        except EtlError as error:
            failures.append(error)
            typer.echo(f"wrong  {flow.name}: {what}\n{indent(str(error), ' ' * 7)}")
            return None
        typer.echo(f"ok     {flow.name}: {what}")
        return found

    for flow in flows:
        fits = f"mapping {flow.mapping} fits schema {flow.schema}"
        rules = look(flow, fits, partial(given.rules_of, flow))
        source = (flow.connection, flow.events, flow.where)
        if source not in asked:  # every question counts in the project's budget
            asked.add(source)
            day = given.latest(flow.connection.zone) - DAY
            answers = f"{flow.connection.host} answers these credentials"
            look(flow, answers, partial(_sample, flow, home, day, 1))
        look(flow, f"dataset {flow.dataset} can be written", partial(_probe, flow, rules))
    return max((_status(error) for error in failures), default=0)


@app.command(epilog=f"Example: {PROGRAM} demo")
def demo() -> int:
    """Try all of it without an account: three days into ./demo-data."""
    from engine.demo import run

    return run(Path("demo-data"))


@app.command(epilog=f"Example: {PROGRAM} sandbox --port 8000 --events-per-day 100000")
def sandbox(
    port: Annotated[int, typer.Option(metavar="P", min=0, max=65535, help="0: any.")] = 8000,
    events_per_day: Annotated[int, typer.Option(metavar="N", min=0, help="Volume.")] = 10_000,
    seed: Annotated[int, typer.Option(metavar="N", help="Other events for another seed.")] = 1,
    shape: Annotated[str, typer.Option(metavar="S", help="mixed, small, wide or typed.")] = "mixed",
) -> None:
    """A stand-in for Mixpanel's export endpoint, on this machine."""
    from engine.sandbox import Project, Spec, serve
    from engine.sandbox.__main__ import announce
    from engine.sandbox.shapes import SHAPES

    spec = Spec(
        seed=seed, events_per_day=events_per_day, shape=given.one_of("--shape", shape, list(SHAPES))
    )
    serve(port=port, project=Project(spec), announce=announce)


def _sample(flow: Flow, home: Path, day: date, limit: int) -> list[dict[str, Any]]:
    """At most `limit` events of `day`: one request, which the budget counts."""
    from engine.backfill import project_key
    from engine.catalog import Catalog
    from engine.stages import export, lines

    with Catalog(home) as catalog:
        catalog.asked(project_key(flow), time.time_ns() // 1_000_000)
    window = Window(day, day)
    with export.stream(
        flow.connection, window, events=flow.events, where=flow.where, limit=limit
    ) as chunks:
        return [record for batch in lines.read(chunks) for record in batch.records]


def _probe(flow: Flow, rules: "Rules | None") -> None:
    """Look whether the table of `flow` can be written and fits, and leave everything as it is."""
    from engine.dataset import local_path

    root = local_path(flow.dataset).absolute()
    nearest = next(path for path in (root, *root.parents) if path.exists())
    if rules:
        given.dataset_of(flow, rules)
    with disk_error(f"write in {nearest}"), tempfile.TemporaryFile(dir=nearest):
        pass


def _print_json(value: Any) -> None:
    """Print `value` in UTF-8; half a surrogate pair, which UTF-8 cannot hold, in JSON's escape."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    typer.echo(text.encode("utf-8", "backslashreplace"))
