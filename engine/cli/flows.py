"""The commands on the flows of a configuration, and on those that its home keeps."""

import os
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGHUP
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import options
from engine.cli.console import AsJson, answer, answer_json, answering, say
from engine.config import file
from engine.config.fields import reading
from engine.config.file import Api, Config
from engine.control import declared_flows
from engine.errors import InputError
from engine.sync import open_flow

if TYPE_CHECKING:
    from engine.sync.status import FlowStatus

PROGRAM = "mixpanel-etl"
ConfigFile = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The configuration file (TOML).")
]
FlowName = Annotated[
    str | None, typer.Option("--flow", metavar="F", help="This flow only. Default: all.")
]
MaybeConfig = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A configuration file (TOML).")
]
Home = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="Of a daemon, without --config: the flows it keeps."
    ),
]
OneFlow = Annotated[str, typer.Option("--flow", metavar="F", help="The flow.")]

positions = typer.Typer(help="Up to when each flow was pulled, and how to have days pulled again.")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog=f"Example: {PROGRAM} daemon --config flows.toml")(daemon)
    app.command(epilog=f"Example: {PROGRAM} apply flows.toml")(apply)
    app.command(epilog=f"Example: {PROGRAM} plan --config flows.toml --flow events")(plan)
    app.command(epilog=f"Example: {PROGRAM} status --config flows.toml")(status)
    app.add_typer(positions, name="positions")


def daemon(config_file: ConfigFile) -> int:
    """Run the flows on their schedules, until told to stop (SIGTERM or Ctrl-C).

    SIGHUP reads the configuration again.
    """
    from engine.daemon.scheduler import Daemon
    from engine.log import configure

    configure()
    return Daemon(config_file, os.environ).run()


def apply(
    config_file: Annotated[Path, typer.Argument(metavar="FILE", help="A configuration (TOML).")],
) -> None:
    """Keep the flows of a file in its home, for any daemon of that home to run.

    What was applied from the file before and is not in it any more goes. A daemon that runs there
    follows at once.
    """
    from engine.catalog.database import Catalog
    from engine.catalog.resources import Resources
    from engine.control import from_config
    from engine.control.secrets import secret_store_of
    from engine.dataset.storage.local import holder

    loaded = declared_flows.loaded(config_file)
    vault = secret_store_of(loaded.home, (loaded.api or Api()).key)
    with Catalog(loaded.home) as catalog:
        origin = declared_flows.origin_of(config_file)
        changes = from_config.apply(loaded, Resources(catalog), vault, open_flow.now(), origin)
    for change in changes:
        answer(change)
    if not changes:
        say("Nothing changed.")
    elif daemon := holder(loaded.home / declared_flows.LOCK):
        os.kill(daemon, SIGHUP)
        say(f"The daemon that runs there, process {daemon}, follows.")


def plan(config_file: ConfigFile, flow: FlowName = None, as_json: AsJson = False) -> None:
    """What the daemon would ask for now, and why; it asks nothing."""
    from engine.cli.progress import table
    from engine.model.clock import duration
    from engine.model.retry import DEFAULT_RATE_LIMIT

    told, problems = _statuses(config_file, flow)
    if as_json:
        answer_json([
            {"flow": s.flow.name, "problem": s.problem or None, "due": [
                {"why": due.why, "window": due.window.as_json()} for due in s.due]}
            for s in told
        ])  # fmt: skip
        return
    with answering():
        rows = [(s.flow.name, due.why, due.window) for s in told for due in s.due]
        if rows:
            table(["flow", "why", "window"], rows)
    for s in told:
        for note in filter(None, (s.undone, s.changed)):
            say(f"{s.flow.name}: {note}")
        if s.problem or not s.flow.schedule:
            say(f"{s.flow.name}: {s.problem or 'it has no schedule: the daemon leaves it alone.'}")
            continue
        count, left = s.requests, DEFAULT_RATE_LIMIT.per_hour - s.requests_last_hour
        when = "at once" if s.hours == 0 else f"in {duration(s.hours * 3600)}"
        requests = "1 request" if count == 1 else f"{count:,} requests"
        say(
            f"{s.flow.name}: {requests}; {left} of {DEFAULT_RATE_LIMIT.per_hour} left this hour: "
            f"done {when}. Next tick: {_moment(s.next_tick)}."
        )
    for name, why in problems.items():
        say(f"{name}: {why}")


def status(
    config_file: MaybeConfig = None,
    home: Home = None,
    flow: FlowName = None,
    as_json: AsJson = False,
) -> int:
    """How far each flow is, and what is wrong with it. Exit status 1 if anything is.

    Without --config: the flows that the home keeps, which clients made or which were applied.
    """
    from engine.cli.progress import table
    from engine.model.clock import duration

    told, problems = _statuses(config_file, flow, home)
    if as_json:
        answer_json([s.as_json() for s in told])
    else:
        columns = [
            "flow", "arrived until (UTC)", "behind", "last run (UTC)", "status", "next tick",
            "days", "to fill", "rejected in 24 h", "requests in 1 h",
        ]  # fmt: skip
        rows = [
            (
                s.flow.name,
                _moment(s.positions.arrival),
                "-" if s.behind is None else duration(s.behind / 1000),
                _moment(s.last.started_at if s.last else None),
                s.last.status_label if s.last else "-",
                _moment(s.next_tick),
                len(s.days),
                s.to_fill,
                s.rejected,
                s.requests_last_hour,
            )
            for s in told
        ]
        with answering():
            table(columns, rows)
    wrong = {s.flow.name: " ".join(s.faults) for s in told} | problems
    for name, why in wrong.items():
        if why:
            say(f"{name}: {why}")
    for s in told:
        if s.changed:
            say(f"{s.flow.name}: {s.changed}")
    if any(s.stale_since for s in told):
        say(
            _who_runs(
                declared_flows.loaded(config_file).home if config_file else _existing_home(home)
            )
        )
    for s in told:
        for note in s.notes:
            say(f"{s.flow.name}: {note}")
    return 1 if any(wrong.values()) else 0


def _who_runs(home: Path) -> str:
    """Whether a daemon runs on a home, and when the last run of any flow there was changed."""
    from engine.catalog.database import Catalog
    from engine.dataset.storage.local import holder

    last = None
    if (home / declared_flows.CATALOG).exists():
        with Catalog(home) as catalog:
            last = next((run.updated_at for run in catalog.history(limit=1)), None)
    did = f"Its last run was at {_moment(last)} UTC." if last else "There was no run yet."
    if process := holder(home / declared_flows.LOCK):
        return f"A daemon runs with the home {home}, process {process}: see its log. {did}"
    return f"No daemon runs with the home {home}: start one. {did}"


@positions.command("show", epilog=f"Example: {PROGRAM} positions show --config flows.toml")
def show(config_file: ConfigFile, flow: FlowName = None, as_json: AsJson = False) -> None:
    """Up to when the table holds what arrived, and when each day was pulled whole."""
    from engine.cli.progress import table
    from engine.model.schedule import UNKNOWN

    told, _ = _statuses(config_file, flow)
    if as_json:
        answer_json([
            {"flow": s.flow.name, "start": s.positions.start, "arrival": s.positions.arrival,
             "pulled": {str(day): at for day, at in s.positions.pulled.items()}}
            for s in told
        ])  # fmt: skip
        return
    with answering():
        table(
            ["flow", "day", "pulled up to (UTC)"],
            [
                (s.flow.name, name, "unknown" if at == UNKNOWN else _moment(at))
                for s in told
                for name, at in [
                    ("arrivals from", s.positions.start),
                    ("arrivals until", s.positions.arrival),
                    *s.positions.pulled.items(),
                ]
                if at
            ],
        )


@positions.command(
    "reset",
    epilog=f"Example: {PROGRAM} positions reset --config flows.toml --flow events "
    "--from-date 2024-01-01",
)
def reset(
    config_file: ConfigFile,
    flow: OneFlow,
    from_date: Annotated[
        str | None, typer.Option(metavar="D", help="The first day. Default: of all.")
    ] = None,
    to_date: Annotated[
        str | None, typer.Option(metavar="D", help="The last day. Default: of all.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Forget that days were pulled, so that they are pulled again, whole. No row goes by this."""
    from ulid import ULID

    from engine.sync.status import FlowStatus, Reset

    chosen, _ = declared_flows.flow_of(config_file, flow)
    zone = chosen.connection.zone
    first, last = (
        text and options.day(option, text, zone)
        for option, text in (("--from-date", from_date), ("--to-date", to_date))
    )
    now = open_flow.now()
    found = FlowStatus(chosen, None, now)
    if found.problem:
        raise InputError(found.problem)
    planned = Reset(found, first or None, last or None)
    days, others = planned.days, len(planned.pulled) - len(planned.days)
    rest = f" {others} more would not be due then: for those, backfill --force." if others else ""
    if not days:
        return say(f"Nothing to forget: no day of these was pulled and would be due again.{rest}")
    count = "1 day" if len(days) == 1 else f"{len(days)} days"
    answer(
        f"{count}, {days[0]} to {days[-1]}, would count as never pulled, and be due again "
        f"at once. What the table holds of them stays until they are replaced.{rest}"
    )
    if not yes and not typer.confirm("Go on?", err=True):
        return say("Nothing was changed.", 1)
    dataset = open_flow.dataset_of(chosen, open_flow.rules_of(chosen))
    with dataset.locked():
        dataset.forget(str(ULID()), planned.names)
    return say(f"Done. {chosen.name} pulls them as its budget allows, from its next tick on.")


def _statuses(
    config_file: Path | None, name: str | None, home: Path | None = None
) -> tuple[list["FlowStatus"], dict[str, str]]:
    """The flows that are meant, each as it is now, and why others of the home cannot run.

    The catalog is read, if there is one.
    """
    from engine.catalog.database import Catalog
    from engine.catalog.resources import Resources
    from engine.control.to_flow import name_of
    from engine.sync.status import FlowStatus

    if config_file and home:
        raise InputError("--config says where its home is: leave --home out.")
    own = declared_flows.loaded(config_file) if config_file else Config(_existing_home(home), {})
    kept, problems = declared_flows.kept(own, config_file)
    flows = own.flows | kept
    if name is not None:
        flows, problems = _only(flows, name), _only(problems, name)
    if not flows and not problems:
        there = ", ".join((*own.flows, *kept))
        wanted = "flow" if name is None else f'flow "{name}"'
        rest = f"It has: {there}." if there else "It has none: declare one, or apply a file."
        raise InputError(f"{config_file or own.home} has no {wanted}. {rest}")
    declared = _declared_in(config_file, own)
    now = open_flow.now()
    if not (own.home / declared_flows.CATALOG).exists():
        return [FlowStatus(f, None, now, declared.get(f.name, 0)) for f in flows.values()], problems
    with Catalog(own.home) as catalog:
        declared |= {name_of(each): each.created_at for each in Resources(catalog).all("flows")}
        told = [FlowStatus(f, catalog, now, declared.get(f.name, 0)) for f in flows.values()]
    return told, problems


def _declared_in(config_file: Path | None, own: Config) -> dict[str, int]:
    """When a configuration file was changed last, in ms, for each of its flows: a flow that never
    ran may be as young as that.
    """
    if config_file is None:
        return {}
    with reading(config_file):
        changed = config_file.stat().st_mtime_ns // 1_000_000
    return dict.fromkeys(own.flows, changed)


def _existing_home(home: Path | None) -> Path:
    """The home that an option or the environment names; InputError where it is not a folder."""
    path = home or file.home(os.environ)
    with reading(path):
        if path.is_dir():
            return path
        if path.exists():
            raise InputError(f"{path} is not a folder: --home names one that a daemon keeps.")
    way = "" if home else " --home, --config or MIXPANEL_ETL_HOME says where to look."
    raise InputError(f"{path} does not exist.{way}")


def _only(found: dict[str, Any], name: str) -> dict[str, Any]:
    return {name: found[name]} if name in found else {}


def _moment(ms: int | None) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%F %R}" if ms else "-"
