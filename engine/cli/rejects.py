"""The commands about what was rejected: which batches, which lines, and once more with them.

They gather their input, hand it to the core, and show the answer.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import console
from engine.cli.console import AsJson, ConfigFile, FlowName, answer, answer_json, say
from engine.control import declared_flows
from engine.errors import InputError
from engine.sync import open_flow

if TYPE_CHECKING:
    from engine.dataset.dataset import Dataset
    from engine.sync.replay import Rejected

SHOWN = 120  # characters of a rejected line in the table for people

app = typer.Typer(
    name="rejects",
    rich_markup_mode=None,
    help="What was rejected, and once more with it.",
    epilog="Example: mixpanel-etl rejects list",
)

DatasetUri = Annotated[
    str | None, typer.Option("--dataset", metavar="URI", help="The table. Default: the flow's.")
]
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="As `rejects list` names it.")]


@app.command("list", epilog="Example: mixpanel-etl rejects list --dataset data/events")
def list_(
    dataset: DatasetUri = None,
    config_file: ConfigFile = None,
    flow: FlowName = None,
    as_json: AsJson = False,
) -> None:
    """The batches whose rejects still matter, the newest first."""
    from engine.cli.progress import table
    from engine.sync.replay import pending

    place = _place(dataset, config_file, flow)
    found = pending(_opened(place))
    if as_json:
        answer_json([each.as_json() for each in found])
    elif found:
        with console.answering():
            columns = ["batch", "when (UTC)", "flow", "days", "rejected", "codes", "state"]
            table(columns, map(_told, found))
    else:
        say(f"No rejects that matter in {place}: nothing waits for a replay.")


@app.command(epilog="Example: mixpanel-etl rejects show 01EF01X41KJD82Y9ZX6ET54PCZ --limit 5")
def show(
    batch: BatchId,
    dataset: DatasetUri = None,
    config_file: ConfigFile = None,
    flow: FlowName = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many lines.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The rejected lines of a batch, and why.

    --json prints them as they are kept, a JSON object a line.
    """
    from engine.cli.progress import table
    from engine.sync.rejected_lines import entries
    from engine.sync.replay import find, rejects_folder

    place = _opened(_place(dataset, config_file, flow))
    find(place, batch)
    lines = 0

    def is_within(entry: dict[str, Any]) -> bool:
        nonlocal lines
        lines += not entry.get("_part")  # a line in several parts is one line
        return lines <= limit

    found = takewhile(is_within, entries(rejects_folder(place, batch)))
    with console.answering():
        if as_json:
            for entry in found:
                typer.echo(json.dumps(entry))
        else:
            rows = (_shown(entry) for entry in found if not entry.get("_part"))
            table(["code", "reason", "line"], rows)


@app.command(
    epilog="Example: mixpanel-etl rejects replay 01EF01X41KJD82Y9ZX6ET54PCZ --schema mended.json"
)
def replay(
    context: typer.Context,
    batch: BatchId,
    dataset: DatasetUri = None,
    config_file: ConfigFile = None,
    flow: FlowName = None,
    mapping: Annotated[
        str | None, typer.Option(metavar="X", help="A shipped mapping set, or a path.")
    ] = None,
    schema: Annotated[
        str | None, typer.Option(metavar="X", help="A shipped schema, or a path.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Add to the table what passes by now.

    The kept lines go through mapping and schema once more; Mixpanel is asked nothing. A batch is
    replayed once: what fails again is in the batch of the replay.
    """
    from engine.catalog.run_history import RunHistory
    from engine.cli.progress import Lines, summary
    from engine.model.run_payload import FAILED, envelope
    from engine.sync.replay import Replay

    chosen, home = declared_flows.flow_of(config_file, flow)
    changes = {"dataset": dataset, "mapping": mapping, "schema": schema}
    for option, text in changes.items():
        if text is not None and not text.strip():
            raise InputError(f"--{option} is empty. Leave it out, or say what it should be.")
    named: dict[str, Any] = {name: text for name, text in changes.items() if text is not None}
    chosen = replace(chosen, **named)
    rules = open_flow.rules_of(chosen)
    debug, again = context.obj
    tell = console.with_tracebacks(Lines()) if debug else Lines()
    table = open_flow.dataset_of(chosen, rules)
    with RunHistory(home, say) as catalog:
        job = Replay(chosen, rules, table, catalog, tell)
        try:
            item = job.run(batch)
        except KeyboardInterrupt:
            return say(f"Stopped. Nothing is half done. To go on: {again}", 1)
    if job.left_out:
        say(f"{job.left_out:,} lines were left out: their days were pulled again since.")
    if as_json:
        answer_json(envelope([item]))
    else:
        answer(summary([item], 1, chosen.dataset))
    return 1 if item["metrics"]["statusSummary"]["status"] == FAILED else 0


def _place(dataset: str | None, config_file: Path | None, flow: str | None) -> str:
    """The dataset that is meant. To look at one takes no credentials."""
    place = declared_flows.DEFAULT_DATASET
    if config_file is not None or flow is not None:
        place = declared_flows.flow_of(config_file, flow)[0].dataset
    if dataset is not None and not dataset.strip():
        raise InputError("--dataset is empty. Leave it out, or say what it should be.")
    return place if dataset is None else dataset


def _opened(place: str) -> "Dataset":
    """The table there, to be looked at, whatever schema it has."""
    from engine.dataset.dataset import Dataset
    from engine.dataset.storage.local import local_path

    try:
        return Dataset(local_path(place), None, None)
    except OSError as error:
        raise InputError(
            f"The dataset {place} cannot be used ({error.strerror}). Give another directory."
        ) from error


def _told(rejected: "Rejected") -> list[object]:
    """A batch as a row for people; its name tells when it was made."""
    from ulid import ULID

    try:
        when = ULID.from_str(rejected.batch_id).datetime.astimezone(UTC)
        made = datetime.strftime(when, "%Y-%m-%d %H:%M")
    except ValueError:
        made = "-"
    note = rejected.note
    if note is None:
        return [rejected.batch_id, made, "-", "-", "-", "-", rejected.state]
    codes = ", ".join(f"{code} {count:,}" for code, count in sorted(note.codes.items()))
    count = f"{note.rejected:,}"
    return [rejected.batch_id, made, note.flow, note.window, count, codes, rejected.state]


def _shown(entry: dict[str, Any]) -> list[str]:
    """A rejected line as a row for people: printable, and not longer than one looks at."""
    from engine.sync.rejected_lines import reason_of

    text = "".join(char if char.isprintable() else " " for char in entry["_corrupt_record"][:800])
    short = text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
    return [*reason_of(entry), short]
