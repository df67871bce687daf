"""`backfill`: pull days into a table, or print the plan and the requests (`--dry-run`)."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import options
from engine.cli.console import Invocation, print_json, print_message, print_result, with_tracebacks
from engine.cli.lazy_imports import lazy_imports
from engine.cli.options import AsJson, ConfigFile, DatasetUri, FlowName, MappingName, SchemaName
from engine.control import declared_flows, run_payload
from engine.errors import InputError
from engine.model import clock, due_windows, retry, run_record
from engine.model.flow import Flow, superseded_in_words
from engine.model.window import Window, consecutive, each_day
from engine.sync import open_flow

with lazy_imports():
    from engine.catalog import buffered
    from engine.cli import progress
    from engine.dataset import dataset as delta_dataset
    from engine.dataset import positions, single_days
    from engine.mixpanel import client
    from engine.sync import backfill as day_backfill
    from engine.sync import options as sync_options
    from engine.sync import pull, window_commits
    from engine.sync import status as flow_status

FromDate = Annotated[str, typer.Option(metavar="D", help="The first day, as 2024-01-31.")]
ToDate = Annotated[str, typer.Option(metavar="D", help="The last day, inclusive.")]
Events = Annotated[
    list[str] | None, typer.Option("--event", metavar="E", help="Only this event; repeatable.")
]
Where = Annotated[
    str | None, typer.Option(metavar="EXPR", help="Only events for which this is true.")
]
Workers = Annotated[
    int, typer.Option(metavar="N", min=1, max=100, help="Number of worker processes.")
]
DaysPerRequest = Annotated[str, typer.Option(metavar="N|auto", help="Days in one request.")]
Force = Annotated[bool, typer.Option("--force", help="Pull complete days again.")]
AllowShrink = Annotated[
    bool, typer.Option("--allow-shrink", help="Allow a re-pull to shrink a day.")
]
PartialPercent = Annotated[
    float | None,
    typer.Option(metavar="N", min=0, max=100, help="Maximum rejects of a day. Default: 5."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and its requests; send none.")
]


def backfill(
    context: typer.Context,
    from_date: FromDate,
    to_date: ToDate,
    dataset: DatasetUri = None,
    config_file: ConfigFile = None,
    flow: FlowName = None,
    mapping: MappingName = None,
    schema: SchemaName = None,
    events: Events = None,
    where: Where = None,
    workers: Workers = 1,
    days_per_request: DaysPerRequest = "auto",
    force: Force = False,
    allow_shrink: AllowShrink = False,
    partial_ingestion_percent: PartialPercent = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> int:
    """Pull days into a table; skip the days that are complete in it."""
    if dry_run and as_json:
        raise InputError("--json prints runs, and --dry-run makes none: leave one of them out.")
    chosen, home = declared_flows.flow_of(config_file, flow)
    chosen = options.override(
        chosen, dataset=dataset, mapping=mapping, schema=schema, where=where, events=events or ()
    )
    if partial_ingestion_percent is not None:
        chosen = replace(chosen, partial_ingestion_percent=partial_ingestion_percent)
    days = _days(chosen, from_date, to_date)
    size = options.parse_days_per_request(days_per_request)
    rules = open_flow.rules_of(chosen)
    # Raises InputError for a request that Mixpanel cannot be sent.
    client.url(chosen.connection, Window(days[0], days[-1]), chosen.events, chosen.where)
    if dry_run:
        return _dry_run(chosen, rules, days, size, force=force)
    settings = sync_options.Options(
        workers=workers, days_per_request=size, force=force, allow_shrink=allow_shrink
    )
    return _backfill(context.obj, chosen, rules, home, days, settings, as_json=as_json)


def _days(flow: Flow, from_date: str, to_date: str) -> list[date]:
    zone = flow.connection.zone
    first = options.parse_day("--from-date", from_date, zone)
    last = options.parse_day("--to-date", to_date, zone)
    if first > last:
        raise InputError(f"--from-date {first} is after --to-date {last}. Swap them.")
    return list(each_day(first, last))


def _backfill(
    invocation: Invocation, flow: Flow, rules: "pull.Rules", home: Path, days: list[date],
    settings: "sync_options.Options", *, as_json: bool,
) -> int:  # fmt: skip
    """Pull the days, print the runs or their summary, and return the exit status."""
    table = open_flow.dataset_of(flow, rules)
    table.mend()
    _report_changes(flow, table, days)
    bar = progress.progress(len(days))
    callback = with_tracebacks(bar) if invocation.debug else bar
    if flow.keep_superseded_hours and table.exists:
        print_message(f"In {flow.dataset}, {superseded_in_words(flow.keep_superseded_hours)}.")
    with buffered.BufferedCatalog(home, print_message) as catalog:
        job = day_backfill.Backfill(flow, rules, table, catalog, settings, callback)
        try:
            with bar:
                records = job.run(days)
        except KeyboardInterrupt:
            return print_message(
                f"Stopped. {job.committed} of {len(days)} days are committed and stay; nothing "
                f"is half done. To go on: {invocation.command_line}",
                1,
            )
    if as_json:
        print_json(run_payload.envelope(records))
    else:
        print_result(progress.summary(records, len(days), flow.dataset, job.otherwise))
    return 1 if any(record.status == run_record.FAILED for record in records) else 0


def _report_changes(flow: Flow, table: "delta_dataset.Dataset", days: list[date]) -> None:
    """Print which of the days other programs changed (P10)."""
    changes, undone = table.changes(days), positions.undone(flow, table, days)
    if undone:
        listed = flow_status.listed(undone.values())
        print_message(f"Not as it was pulled, and pulled again: {listed}.")
    if unchanged := [change for change in changes.values() if not change.undone]:
        listed = flow_status.listed(unchanged)
        print_message(f"Changed by another program, and left so without --force: {listed}.")


def _dry_run(
    flow: Flow, rules: "pull.Rules", days: list[date], size: int | None, *, force: bool
) -> int:
    """Print which days are due, how long they take, and the URL of every request."""

    def print_url(window: Window) -> None:
        print_result(f"GET {client.url(flow.connection, window, flow.events, flow.where)}")

    dataset, now = open_flow.dataset_of(flow, rules), clock.now()
    if dataset.damage:
        print_message(dataset.damage)
    _report_changes(flow, dataset, days)
    due = days if force else day_backfill.missing_days(flow, dataset, days, now)
    print_result(f"Days: {len(days)} asked for, {len(days) - len(due)} complete already.")
    complete = sorted(set(days).difference(due))
    if count := len(window_commits.pulled_otherwise(flow, dataset, complete, rules)):
        print_result(progress.by_another_mapping(count))
    if due and single_days.begin(dataset):
        size, due = 1, sorted({*due, *single_days.misfiled(dataset)})
    fewest, most = due_windows.request_range(due, size)
    if due and (first := day_backfill.first_arrival(flow, dataset, now)):
        fewest, most = fewest + len(first.requests), most + len(first.requests)
        print_result("Before them comes the flow's first arrival window:")
        for window in first.requests:
            print_url(window)
    print_result(_duration(fewest, most))
    if fewest != most:
        print_result("How many days go into one is learned from the first answers; at the most:")
    step = size or 1
    for run in consecutive(due):
        for start in range(0, len(run), step):
            part = run[start : start + step]
            print_url(Window(part[0], part[-1]))
    return 0


def _duration(fewest: int, most: int) -> str:
    """Return how many requests are needed and how many hours the rate limit makes of them."""
    per_hour = retry.DEFAULT_RATE_LIMIT.per_hour
    if most == 0:
        return "Requests: 0."
    requests = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    least, hours = -(-fewest // per_hour), -(-most // per_hour)
    span = f"{hours:,}" if least == hours else f"{least:,} to {hours:,}"
    time = "within an hour" if hours == 1 else f"in {span} hours"
    return (
        f"Requests: {requests}. At {per_hour} an hour, which is what Mixpanel allows a project, "
        f"that is done {time}."
    )
