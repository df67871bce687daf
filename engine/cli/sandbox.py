"""`sandbox`: run the stand-in for Mixpanel's export endpoint."""

import shlex
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from engine.cli.console import print_message, print_result
from engine.cli.lazy_imports import lazy_imports
from engine.cli.options import parse_choice
from engine.config import time_zones
from engine.errors import disk_error

with lazy_imports():
    from engine import sandbox as stand_in

MOST_EVENTS = 100_000_000  # events of a day

Percent = Annotated[float, typer.Option(metavar="N", min=0, max=100, help="Of a day's events.")]
Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Maximum requests. Default: no limit.")
]


def sandbox(
    port: Annotated[
        int, typer.Option(metavar="P", min=0, max=65535, help="Port; 0 picks a free one.")
    ] = 8000,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Seed of the generated events.")
    ] = 1,
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
        typer.Option(metavar="DIR", file_okay=False, help="Cache finished responses there."),
    ] = None,
) -> None:
    """Run a stand-in for Mixpanel's export endpoint on this machine."""
    spec = stand_in.Spec(
        seed=seed,
        shape=parse_choice("--shape", shape, list(stand_in.event_shapes.SHAPES)),
        events_per_day=events_per_day,
        duplicate_percent=duplicate_percent,
        reject_percent=reject_percent,
        late_percent=late_percent,
        clock=parse_choice("--clock", clock, ("utc", "local")),
        timezone=time_zones.parse(timezone),
    )
    if cache_dir:
        with disk_error(f"keep answers in {cache_dir}"):
            cache_dir.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=cache_dir).close()

    def announce(url: str) -> None:
        print_result(url)  # stdout is for programs, stderr for people
        print_message(f"This is a stand-in, NOT Mixpanel: invented events at {url}. To pull them:")
        variables = {
            "HOST": url, "USERNAME": stand_in.USERNAME, "PASSWORD": stand_in.PASSWORD,
            "PROJECT_ID": str(stand_in.PROJECT_ID), "TIMEZONE": spec.zone.key,
        }  # fmt: skip
        for name, value in variables.items():
            print_message(f"export MIXPANEL_{name}={shlex.quote(value)}")

    project = stand_in.Project(spec, per_hour=per_hour, per_second=per_second, cache_dir=cache_dir)
    stand_in.serve(port=port, project=project, announce=announce)
