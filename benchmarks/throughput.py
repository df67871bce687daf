"""Measure the whole command beside the floors and the peers, in turn, on the same bytes."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import peers
from benchmarks.floors import DUCKDB, FLOORS, floor
from benchmarks.process import Failed, Spent, spend
from benchmarks.program import Program
from benchmarks.result import OURS, SERVER, Measurement, Result, warn
from benchmarks.rounds import Contender, in_turn, new_folder
from benchmarks.server import FIRST, LOGIN, Server, serving
from benchmarks.settings import Settings
from benchmarks.shapes import TUTORIAL, mapped

SECOND = "2024-01-02"
CURL, GUNZIP = f"{SERVER}, curl", f"{SERVER}, curl and gunzip"
PEER_SHAPES = ("small", "wide")


def measure(settings: Settings) -> Result:
    """Measure each shape beside the floors, then beside each peer."""
    result = settings.begin("throughput")
    for shape in settings.shapes:
        if shape == "days":
            _two_days(result, settings)
        else:
            _one_window(result, shape, settings)
    for peer in peers.chosen(settings.peers):
        _beside(result, peer, settings)
    return result


def _one_window(result: Result, shape: str, settings: Settings) -> None:
    with new_folder() as folder, serving(shape, settings.events) as server:
        source = folder / "day.ndjson.gz"
        lines = server.fetch(keep=source)
        contenders = [
            *_ours(shape, server, lines),
            *(floor(name, [source], mapped(shape), lines) for name in FLOORS),
            plain(CURL, server, lines),
            plain(GUNZIP, server, lines),
        ]
        in_turn(result, shape, contenders, settings.runs, settings.warm)


def _ours(shape: str, server: Server, lines: int) -> list[Contender]:
    """Return the program as the goals need it: for `wide`, with and without `unmapped`."""
    more = {name: kind for name, kind in mapped(shape).items() if name not in TUTORIAL}
    program = Program(server.url, more=more)
    if shape != "wide":
        return [Contender(OURS, lines, program.run, required=True)]
    return [
        Contender(f"{OURS}, {kept}", lines, replace(program, unmapped=kept).run, required=True)
        for kept in ("drop", "keep")
    ]


def _two_days(result: Result, settings: Settings) -> None:
    with new_folder() as folder, serving("small", settings.events) as server:
        sources = [folder / f"{day}.ndjson.gz" for day in (FIRST, SECOND)]
        lines = sum(
            server.fetch(day, day, keep=source)
            for day, source in zip((FIRST, SECOND), sources, strict=True)
        )
        options = ("--workers", "2", "--days-per-request", "1")
        program = Program(server.url, last=SECOND, options=options)
        contenders = [
            Contender(f"{OURS}, 2 workers", lines, program.run, required=True),
            floor(DUCKDB, sources, TUTORIAL, lines),
        ]
        in_turn(result, "days", contenders, settings.runs, settings.warm)


def _beside(result: Result, peer: peers.Peer, settings: Settings) -> None:
    """Measure the program and a peer in turn; name a peer that cannot be installed."""
    events = min(peer.events, settings.events)
    for shape in PEER_SHAPES:
        if shape not in settings.shapes:
            continue
        group = f"{shape} beside {peer.key}"
        try:
            peers.install(peer)
        except Failed as error:
            warn(f"{peer.name}: {error}\n{error.said}")
            note = f"failed: {error}"
            result.measurements.append(Measurement(group, peer.name, 0, note=note))
            continue
        with serving(shape, events) as server:
            lines = server.fetch()
            program = Contender(OURS, lines, Program(server.url).run, required=True)
            other = peers.contender(peer, server.url, shape, lines)
            in_turn(result, group, [program, other], settings.runs)


def plain(name: str, server: Server, lines: int) -> Contender:
    """Return the download alone, or with decompression: it shows that nobody waits for the server.

    Uses curl and gunzip, or Python if they are missing.
    """
    command: Sequence[str]
    if shutil.which("curl") and shutil.which("gunzip"):
        ask = 'curl --silent --show-error --fail --header "Accept-Encoding: gzip"'
        ask += ' --header "Authorization: $0" "$1"'
        unpack = " | gunzip --stdout" if name == GUNZIP else ""
        command = ["sh", "-c", f"{ask}{unpack} > /dev/null", LOGIN, server.address()]
    else:
        name = name.replace("curl", "Python's urllib").replace("gunzip", "zlib")
        script = Path(__file__).with_name("floors") / "plain_read.py"
        argument = {"url": server.address(), "login": LOGIN, "unpack": "zlib" in name}
        command = [sys.executable, str(script), json.dumps(argument)]

    def run(_folder: Path) -> tuple[Spent, None]:
        return spend(command), None

    return Contender(name, lines, run)
