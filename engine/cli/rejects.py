"""`rejects list | show | replay`: batches with rejects, their lines, and a second try."""

import json
from datetime import UTC
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli import console, options
from engine.cli.lazy_imports import lazy_imports
from engine.cli.options import AsJson, ConfigFile, FlowName, MappingName, SchemaName
from engine.control import declared_flows
from engine.control.run_payload import envelope
from engine.errors import InputError
from engine.model.run_record import FAILED
from engine.sync import open_flow

with lazy_imports():
    from engine.catalog import buffered
    from engine.cli import progress
    from engine.dataset import dataset as delta_dataset
    from engine.dataset.storage import local
    from engine.sync import rejected_lines
    from engine.sync import replay as batch_replay

LINE_WIDTH = 120  # characters of a rejected line in the table

app = typer.Typer(
    name="rejects",
    rich_markup_mode=None,
    help="List, show and replay rejected lines.",
    epilog=f"Example: {console.PROGRAM} rejects list",
)

DatasetUri = Annotated[
    str | None, typer.Option("--dataset", metavar="URI", help="The table. Default: the flow's.")
]
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="As `rejects list` names it.")]


@app.command("list", epilog=f"Example: {console.PROGRAM} rejects list --dataset data/events")
def list_(
    dataset: DatasetUri = None,
    config_file: ConfigFile = None,
    flow: FlowName = None,
    as_json: AsJson = False,
) -> None:
    """List the batches whose rejects still matter, newest first."""
    uri = _dataset_uri(dataset, config_file, flow)
    pending = batch_replay.pending(_open_dataset(uri))
    if as_json:
        console.print_json([each.as_json() for each in pending])
    elif pending:
        columns = ["batch", "when (UTC)", "flow", "days", "rejected", "codes", "state"]
        progress.table(columns, map(_batch_row, pending))
    else:
        console.print_message(f"No rejects that matter in {uri}: nothing waits for a replay.")


@app.command(epilog=f"Example: {console.PROGRAM} rejects show 01EF01X41KJD82Y9ZX6ET54PCZ --limit 5")
def show(
    batch: BatchId,
    dataset: DatasetUri = None,
    config_file: ConfigFile = None,
    flow: FlowName = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of lines.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the rejected lines of a batch, and why each was rejected.

    --json prints them as they are stored, one JSON object a line.
    """
    table = _open_dataset(_dataset_uri(dataset, config_file, flow))
    batch_replay.find(table, batch)
    lines = 0

    def is_within_limit(entry: dict[str, Any]) -> bool:
        nonlocal lines
        lines += not entry.get("_part")  # a line in several parts is one line
        return lines <= limit

    folder = batch_replay.rejects_folder(table, batch)
    entries = takewhile(is_within_limit, rejected_lines.entries(folder))
    if as_json:
        for entry in entries:
            console.print_result(json.dumps(entry))
    else:
        rows = (_line_row(entry) for entry in entries if not entry.get("_part"))
        progress.table(["code", "reason", "line"], rows)


@app.command(
    epilog=f"Example: {console.PROGRAM} rejects replay 01EF01X41KJD82Y9ZX6ET54PCZ "
    "--schema mended.json"
)
def replay(
    context: typer.Context,
    batch: BatchId,
    dataset: DatasetUri = None,
    config_file: ConfigFile = None,
    flow: FlowName = None,
    mapping: MappingName = None,
    schema: SchemaName = None,
    as_json: AsJson = False,
) -> int:
    """Add the rejected lines of a batch to the table that pass now.

    The stored lines go through mapping and schema again, without a request to Mixpanel. A batch
    is replayed once: lines that fail again are in the batch of the replay.
    """
    chosen, home = declared_flows.flow_of(config_file, flow)
    chosen = options.override(chosen, dataset=dataset, mapping=mapping, schema=schema)
    rules = open_flow.rules_of(chosen)
    lines = progress.Lines()
    callback = console.with_tracebacks(lines) if context.obj.debug else lines
    table = open_flow.dataset_of(chosen, rules)
    with buffered.BufferedCatalog(home, console.print_message) as catalog:
        job = batch_replay.Replay(chosen, rules, table, catalog, callback)
        try:
            record = job.run(batch)
        except KeyboardInterrupt:
            return console.print_message(
                f"Stopped. Nothing is half done. To go on: {context.obj.command_line}", 1
            )
    if job.left_out:
        console.print_message(
            f"{job.left_out:,} lines were left out: their days were pulled again since."
        )
    if as_json:
        console.print_json(envelope([record]))
    else:
        console.print_result(progress.summary([record], 1, chosen.dataset))
    return 1 if record.status == FAILED else 0


def _dataset_uri(dataset: str | None, config_file: Path | None, flow: str | None) -> str:
    """Return --dataset, else the dataset of the chosen flow. Needs no credentials."""
    uri = declared_flows.DEFAULT_DATASET
    if config_file is not None or flow is not None:
        uri = declared_flows.flow_of(config_file, flow)[0].dataset
    if dataset is None:
        return uri
    options.check_not_empty("--dataset", dataset)
    return dataset


def _open_dataset(uri: str) -> "delta_dataset.Dataset":
    try:
        return delta_dataset.Dataset(local.local_path(uri), None, None)
    except OSError as error:
        raise InputError(
            f"The dataset {uri} cannot be used ({error.strerror}). Give another directory."
        ) from error


def _batch_row(rejected: "batch_replay.Rejected") -> list[object]:
    from ulid import ULID  # it takes 20 ms, which no --help waits for

    try:
        made = f"{ULID.from_str(rejected.batch_id).datetime.astimezone(UTC):%F %R}"
    except ValueError:
        made = "-"
    note = rejected.manifest
    if note is None:
        return [rejected.batch_id, made, "-", "-", "-", "-", rejected.state]
    codes = ", ".join(f"{code} {count:,}" for code, count in sorted(note.codes.items()))
    count = f"{note.rejected:,}"
    return [rejected.batch_id, made, note.flow, note.window, count, codes, rejected.state]


def _line_row(entry: dict[str, Any]) -> list[str]:
    """Return the cells for one rejected line: code, reason, and its printable beginning."""
    line = entry["_corrupt_record"][:800]
    text = "".join(char if char.isprintable() else " " for char in line)
    short = text if len(text) <= LINE_WIDTH else f"{text[: LINE_WIDTH - 1]}…"
    return [*rejected_lines.reason_of(entry), short]
