"""The commands. Each gathers its input, hands it to the core, and shows the answer.

Exit status: 0 all runs succeeded, 1 at least one failed, 2 the input is wrong and nothing was
tried. Heavy imports wait until a command needs them.
"""

import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from engine import __version__
from engine.cli import console, options, rejects
from engine.cli import flows as cli_flows
from engine.cli.console import AsJson, ConfigFile, FlowName, answer, answer_json, say
from engine.config import file
from engine.control import declared_flows
from engine.errors import EtlError, InputError, disk_error, sentence_of, status_of
from engine.model.flow import Flow, superseded_in_words
from engine.model.window import DAY, Window, consecutive, each_day
from engine.sync import open_flow

if TYPE_CHECKING:
    from engine.dataset.dataset import Dataset
    from engine.sync.pull import Rules

PROGRAM = "mixpanel-etl"
MOST_EVENTS = 100_000_000  # of the sandbox in a day: more than a machine makes
MOST_RUNS = 1_000_000_000  # what nobody has, and SQLite can count
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

Percent = Annotated[float, typer.Option(metavar="N", min=0, max=100, help="Of a day's events.")]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Requests. Default: any.")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    console.open_streams()
    console.listen_to_signals()
    try:
        console.refuse(words)
        again = shlex.join([PROGRAM, *words])
        status = app(
            words or ["--help"], prog_name=PROGRAM, standalone_mode=False, obj=(debug, again)
        )
        if status == INTERRUPTED:
            status = say("Stopped.", 1)
    except typer.TyperException as error:
        help_ = [PROGRAM, *_command_in(words), "--help"]
        message = console.shortened(error.format_message())
        end = "" if message.endswith((".", "?")) else "."
        status = say(f"Error: {message}{end} See: {' '.join(help_)}", 2)
    except Exception as error:  # noqa: BLE001 - all that is left becomes a sentence, here only
        if debug:
            traceback.print_exc()
        sentence = console.shortened(sentence_of(error))
        status = say(f"Error: {sentence}", status_of(error))
    sys.exit(status or 0)


def _command_in(words: Sequence[str]) -> list[str]:
    """The words that `words` begin with and that name a command, with its group."""
    at: Any = typer.main.get_command(app)
    named: list[str] = []
    for word in words:
        at = getattr(at, "commands", {}).get(word)
        if at is None:
            break
        named.append(word)
    return named


def _version(wanted: bool) -> None:
    if wanted:
        answer(f"{PROGRAM} {__version__}")
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
        str | None,
        typer.Option(metavar="URI", help=f"The table. Default: {declared_flows.DEFAULT_DATASET}"),
    ] = None,
    config_file: ConfigFile = None,
    flow: FlowName = None,
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
    partial_ingestion_percent: Annotated[
        float | None,
        typer.Option(metavar="N", min=0, max=100, help="Rejects that a day may have. Default: 5."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its requests; ask nothing.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Pull days into a table. Those that are complete in it are skipped."""
    if dry_run and as_json:
        raise InputError("--json prints runs, and --dry-run makes none: leave one of them out.")
    chosen, home = declared_flows.flow_of(config_file, flow)
    changes = {"dataset": dataset, "mapping": mapping, "schema": schema, "where": where}
    named: dict[str, Any] = {name: text for name, text in changes.items() if text is not None}
    for option, text in [*named.items(), *(("event", name) for name in event or [])]:
        if not text.strip():
            raise InputError(f"--{option} is empty. Leave it out, or say what it should be.")
    if partial_ingestion_percent is not None:
        named["partial_ingestion_percent"] = partial_ingestion_percent
    chosen = replace(chosen, **named | ({"events": tuple(event)} if event else {}))
    zone = chosen.connection.zone
    first, last = (
        options.day("--from-date", from_date, zone),
        options.day("--to-date", to_date, zone),
    )
    if first > last:
        raise InputError(f"--from-date {first} is after --to-date {last}. Swap them.")
    days, size = list(each_day(first, last)), options.days_per_request(days_per_request)
    rules = open_flow.rules_of(chosen)
    if dry_run:
        return _dry_run(chosen, rules, days, size, force=force)
    settings = {"workers": workers, "days_per_request": size}
    settings |= {"force": force, "allow_shrink": allow_shrink}
    return _backfill(context, chosen, rules, home, days, settings, as_json=as_json)


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
    from engine.catalog.run_history import RunHistory
    from engine.cli.progress import progress, summary
    from engine.mixpanel.client import url
    from engine.model.run_payload import FAILED, envelope
    from engine.sync.backfill import Backfill, missing_days
    from engine.sync.options import Options

    # What nobody can ask is wrong input.
    url(flow.connection, Window(days[0], days[-1]), flow.events, flow.where)
    debug, again = context.obj
    table = open_flow.dataset_of(flow, rules)
    table.mend()
    _tell_changes(flow, table, days)
    due = days if options["force"] else missing_days(flow, table, days, open_flow.now())
    show = progress(len(due))
    tell = console.with_tracebacks(show) if debug else show
    if flow.keep_superseded_hours and table.exists:
        say(f"In {flow.dataset}, {superseded_in_words(flow.keep_superseded_hours)}.")
    with RunHistory(home, say) as catalog:
        job = Backfill(flow, rules, table, catalog, Options(**options), tell)
        try:
            with show:
                items = job.run(days)
        except KeyboardInterrupt:
            return say(
                f"Stopped. {job.committed} of {len(days)} days are committed and stay; nothing "
                f"is half done. To go on: {again}",
                1,
            )
    if as_json:
        answer_json(envelope(items))
    else:
        answer(summary(items, len(days), flow.dataset, job.otherwise))
    failed = [i for i in items if i["metrics"]["statusSummary"]["status"] == FAILED]
    return 1 if failed else 0


def _tell_changes(flow: Flow, table: "Dataset", days: list[date]) -> None:
    """P10: say what another program did to the days before any of them is called complete."""
    from engine.dataset import positions
    from engine.sync.status import listed

    changes, undone = table.changes(days), positions.undone(flow, table, days)
    if again := undone.values():
        say(f"Not as it was pulled, and pulled again: {listed(again)}.")
    if kept := [each for each in changes.values() if not each.undone]:
        say(f"Changed by another program, and left so without --force: {listed(kept)}.")


def _dry_run(flow: Flow, rules: "Rules", days: list[date], size: int | None, *, force: bool) -> int:
    from engine.cli.progress import by_another_mapping
    from engine.dataset import single_days
    from engine.mixpanel.client import url
    from engine.model import schedule
    from engine.sync.backfill import first_arrival, missing_days
    from engine.sync.day_marks import pulled_otherwise

    url(flow.connection, Window(days[0], days[-1]), flow.events, flow.where)  # or InputError
    dataset = open_flow.dataset_of(flow, rules)
    if dataset.damage:
        say(dataset.damage)
    _tell_changes(flow, dataset, days)
    due = days if force else missing_days(flow, dataset, days, open_flow.now())
    answer(f"Days: {len(days)} asked for, {len(days) - len(due)} complete already.")
    complete = sorted(set(days).difference(due))
    if count := len(pulled_otherwise(flow, dataset, complete, rules)):
        answer(by_another_mapping(count))
    if due and single_days.begin(dataset):
        size, due = 1, sorted({*due, *single_days.misfiled(dataset)})
    fewest, most = schedule.request_range(due, size)
    if due and (first := first_arrival(flow, dataset, open_flow.now())):
        requests = first.requests
        fewest, most = fewest + len(requests), most + len(requests)
        answer("Before them comes the flow's first arrival window:")
        for each in requests:
            answer(f"GET {url(flow.connection, each, flow.events, flow.where)}")
    answer(_effort(fewest, most))
    if fewest != most:
        answer("How many days go into one is learned from the first answers; at the most:")
    step = size or 1
    for run in consecutive(due):
        for part in (run[at : at + step] for at in range(0, len(run), step)):
            window = Window(part[0], part[-1])
            answer(f"GET {url(flow.connection, window, flow.events, flow.where)}")
    return 0


def _effort(fewest: int, most: int) -> str:
    """How many requests it takes, and how many hours the budget makes of them."""
    from engine.model.schedule import DEFAULT_RATE_LIMIT

    per_hour = DEFAULT_RATE_LIMIT.per_hour
    if most == 0:
        return "Requests: 0."
    requests = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    least, hours = -(-fewest // per_hour), -(-most // per_hour)
    if hours == 1:
        time = "within an hour"
    else:
        time = f"in {hours:,} hours" if least == hours else f"in {least:,} to {hours:,} hours"
    return (
        f"Requests: {requests}. At {per_hour} an hour, which is what Mixpanel allows a project, "
        f"that is done {time}."
    )


@app.command(epilog=f"Example: {PROGRAM} runs --status failed --limit 5")
def runs(
    flow: Annotated[str | None, typer.Option(metavar="NAME", help="Of this flow only.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="S", help="success, failed or inProgress.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=MOST_RUNS, help="At most so many.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """The history of runs, the newest first."""
    from engine.catalog.database import NAME, Catalog
    from engine.cli.progress import history
    from engine.model.run_payload import FAILED, IN_PROGRESS, SUCCESS, envelope

    if status is not None:
        status = options.one_of("--status", status, (SUCCESS, FAILED, IN_PROGRESS))
    home = file.home(os.environ)
    entries = []
    if (home / NAME).exists():  # who asks leaves no trace
        with Catalog(home) as catalog:
            entries = catalog.history(flow, status, limit=limit)
    if as_json:
        answer_json(envelope([entry.item for entry in entries]))
    elif entries:
        with console.answering():
            history(entries)
    else:
        where = f"{home / NAME}" if home.exists() else f"{home / NAME}: {home} does not exist"
        say(f"No such runs in {where}. MIXPANEL_ETL_HOME says where to look.")


@app.command(epilog=f"Example: {PROGRAM} explore --from-date 2024-01-01 --limit 5")
def explore(
    from_date: Annotated[
        str | None, typer.Option(metavar="D", help="The day to look at. Default: yesterday.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Events.")] = 10,
) -> None:
    """A few events of a day, and the schema that fits them."""
    from engine.sync.sample import sample
    from engine.transform.infer import response

    flow, home = declared_flows.flow_of(None, None)
    zone = flow.connection.zone
    day = options.latest(zone) - DAY
    if from_date is not None:
        day = options.day("--from-date", from_date, zone)
    records = sample(flow, home, Window(day, day), limit)
    if not records:
        say(f"Mixpanel has no events of {day}.")
    answer_json(response(records))


@app.command(epilog=f"Example: {PROGRAM} check --config flows.toml")
def check(config_file: ConfigFile = None) -> int:
    """Everything that can be wrong, at once: from file to table."""
    from engine.sync.sample import has_table, look_at_files, probe, sample

    flows, home = declared_flows.flows_of(config_file)
    asked, failures = set(), list[EtlError]()

    def look(flow: Flow, subject: str, holds: str, test: Callable[[], Any]) -> Any:
        """What `test` returns, if what it tests `holds`; None, and its error told, if it fails."""
        try:
            found = test()
        except EtlError as error:
            failures.append(error)
            answer(f"wrong  {flow.name}: {subject}\n{indent(str(error), ' ' * 7)}")
            return None
        answer(f"ok     {flow.name}: {subject} {holds}")
        return found

    for flow in flows:
        rules = look(
            flow, f"mapping {flow.mapping}", f"fits schema {flow.schema}",
            partial(open_flow.rules_of, flow),
        )  # fmt: skip
        source = (flow.connection, flow.events, flow.where)
        if source not in asked:  # every question counts in the project's budget
            asked.add(source)
            day = options.latest(flow.connection.zone) - DAY
            test = partial(sample, flow, home, Window(day, day), 1)
            look(flow, flow.connection.host, "answers these credentials", test)
        readers = f"can be written; {superseded_in_words(flow.keep_superseded_hours)}"
        look(flow, f"dataset {flow.dataset}", readers, partial(probe, flow, rules))
        if rules and has_table(flow):
            files = f"files of dataset {flow.dataset}"
            look(flow, files, "are all there", partial(look_at_files, flow, rules))
    return max((status_of(error) for error in failures), default=0)


@app.command(epilog=f"Example: {PROGRAM} demo")
def demo() -> int:
    """Try all of it without an account: three days into ./demo-data."""
    from engine.cli.demo import run

    return run(Path("demo-data"))


@app.command(epilog=f"Example: {PROGRAM} sandbox --port 8000 --events-per-day 100000")
def sandbox(
    port: Annotated[int, typer.Option(metavar="P", min=0, max=65535, help="0: any.")] = 8000,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Another one: other events.")] = 1,
    shape: Annotated[str, typer.Option(metavar="S", help="mixed, small, wide or typed.")] = "mixed",
    events_per_day: Annotated[
        int, typer.Option(metavar="N", min=0, max=MOST_EVENTS, help="Volume.")
    ] = 10_000,
    duplicate_percent: Percent = 1.0,
    reject_percent: Percent = 0.0,
    late_percent: Percent = 2.0,
    clock: Annotated[
        str, typer.Option(metavar="C", help="utc, or local as in projects made before 2023.")
    ] = "utc",
    timezone: Annotated[
        str, typer.Option(metavar="Z", help="The zone of a local clock.")
    ] = "America/Los_Angeles",
    per_hour: Limit = None,
    per_second: Limit = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Keep finished answers there."),
    ] = None,
) -> None:
    """A stand-in for Mixpanel's export endpoint, on this machine."""
    from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Project, Spec, serve
    from engine.sandbox.shapes import SHAPES

    def announce(url: str) -> None:
        answer(url)  # for programs, the rest for people
        say(f"This is a stand-in, NOT Mixpanel: invented events at {url}. To pull them:")
        wanted = {"HOST": url, "USERNAME": USERNAME, "PASSWORD": PASSWORD}
        wanted |= {"PROJECT_ID": str(PROJECT_ID), "TIMEZONE": spec.zone.key}
        for name, value in wanted.items():
            say(f"export MIXPANEL_{name}={shlex.quote(value)}")

    spec = Spec(
        seed=seed,
        shape=options.one_of("--shape", shape, list(SHAPES)),
        events_per_day=events_per_day,
        duplicate_percent=duplicate_percent,
        reject_percent=reject_percent,
        late_percent=late_percent,
        clock=options.one_of("--clock", clock, ("utc", "local")),
        timezone=file.timezone(timezone),
    )
    if cache_dir:
        with disk_error(f"keep answers in {cache_dir}"):
            cache_dir.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=cache_dir).close()
    project = Project(spec, per_hour=per_hour, per_second=per_second, cache_dir=cache_dir)
    serve(port=port, project=project, announce=announce)


cli_flows.register(app)
app.add_typer(rejects.app)
