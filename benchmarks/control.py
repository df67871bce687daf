"""Measure how the control plane lists a long history of runs: ms per page, requests per second.

Run as a program, it serves that history, built once and cached, and prints its address.
"""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from benchmarks.process import ROOT, Failed
from benchmarks.result import Measurement, Result, middle
from benchmarks.rounds import new_folder, show
from benchmarks.server import CACHE
from benchmarks.settings import Settings

PAGES, REQUESTS = "a page of runs", "requests for runs"
MADE_BY = (
    "engine/catalog/database.py",
    "engine/catalog/flow_totals.py",
    "engine/catalog/runs.py",
    "engine/catalog/schema.py",
    "engine/model/run_record.py",
    "benchmarks/control.py",
)
RUNS = "/data/foundation/flowservice/runs"
TOKEN = "benchmark"  # guards nothing
FLOWS = 20
BEGIN, EVERY = 1_700_000_000_000, 60_000  # ms
OFTEN = 20  # fetches of a page in a round; their median counts
ASKED = 2_000  # requests in a round
AT_ONCE = (1, 4)


def measure(settings: Settings) -> Result:
    """Measure all kinds of pages in turn, then how many first pages are answered per second."""
    result = settings.begin("control")
    with serving(settings.history) as (host, port):
        pages = addresses(host, port, settings.history)
        found = {name: Measurement(PAGES, name, 0, {"ms": []}) for name in pages}
        result.measurements += found.values()
        for _ in range(settings.warm + settings.runs):
            client = HTTPConnection(host, port)
            for name, address in pages.items():
                taken = [_timed(client, address) for _ in range(1 if settings.quick else OFTEN)]
                found[name].figures["ms"].append(round(middle(taken), 2))
            client.close()
        for each in found.values():
            del each.figures["ms"][: settings.warm]
        show(result, PAGES)
        asked = max(20, ASKED // (100 if settings.quick else 1))
        for many in AT_ONCE:
            name = f"{asked:,} of the first 20, {many} at a time"
            taken = [_taken(host, port, asked, many) for _ in range(settings.runs)]
            note = f"{asked / middle(taken):,.0f} requests a second"
            result.measurements.append(Measurement(REQUESTS, name, 0, {"seconds": taken}, note))
        show(result, REQUESTS)
    return result


def addresses(host: str, port: int, history: int) -> dict[str, str]:
    """Return one request for each kind of page, by its name."""
    client = HTTPConnection(host, port)
    flow = json.loads(_get(client, f"{RUNS}?limit=1"))["items"][0]["flowId"]
    began, middle = "metrics.durationSummary.startedAtUTC", BEGIN + history // 2 * EVERY
    deep = f"{RUNS}?limit=1000"
    for _ in range(max(0, history * 9 // 10 // 1000)):
        deep = RUNS.removesuffix("/runs") + json.loads(_get(client, deep))["_links"]["next"]["href"]
    client.close()
    success = "property=metrics.statusSummary.status==success"
    return {
        "the first 20": RUNS,
        "the first 100": f"{RUNS}?limit=100",
        "the first 1,000": f"{RUNS}?limit=1000",
        "100 after nine tenths": deep.replace("limit=1000", "limit=100"),
        "one flow": f"{RUNS}?property=flowId=={flow}",
        "one flow, failed": f"{RUNS}?property=flowId=={flow}&property=state==Failed",
        "failed": f"{RUNS}?property=metrics.statusSummary.status==Failed",
        "running": f"{RUNS}?property=state==inProgress",
        "a time": f"{RUNS}?property={began}>{middle}&property={began}<{middle + 999_000}",
        "a flow and a time": f"{RUNS}?property=flowId=={flow}&property={began}<{BEGIN + 9_999_000}",
        "of no flow, by update": f"{RUNS}?property=flowId==none&orderby=-updatedAt",
        "successful, by end": f"{RUNS}?{success}&orderby=-metrics.durationSummary.completedAtUTC",
        "by status, then end": f"{RUNS}?orderby=state,-metrics.durationSummary.completedAtUTC",
        "the count of all": f"{RUNS}?count=true",
        "the count of successful ones": f"{RUNS}?{success}&count=true",
        "Prometheus' figures": "/metrics",
    }


def _get(client: HTTPConnection, address: str) -> bytes:
    client.request("GET", address, headers={"x-api-key": TOKEN})
    answer = client.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise Failed(f"{address} is answered with {answer.status}", body.decode())
    return body


def _timed(client: HTTPConnection, address: str) -> float:
    started = time.perf_counter()
    _get(client, address)
    return (time.perf_counter() - started) * 1000


def _taken(host: str, port: int, asked: int, many: int) -> float:
    """Return the seconds for `ASKED` requests of several clients at once."""

    def ask(_: int) -> None:
        client = HTTPConnection(host, port)
        for _ in range(asked // many):
            _get(client, RUNS)
        client.close()

    started = time.perf_counter()
    with ThreadPoolExecutor(many) as pool:
        list(pool.map(ask, range(many)))
    return round(time.perf_counter() - started, 4)


@contextmanager
def serving(history: int) -> Iterator[tuple[str, int]]:
    """Start the control plane over a history of runs in a process of its own; yield its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.control", str(history)],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        try:
            url = urlsplit(process.stdout.readline().strip())
            if not url.hostname or not url.port:
                raise Failed("the control plane did not start; what it said stands above")
            yield url.hostname, url.port
        finally:
            process.terminate()


def fill(home: Path, history: int) -> None:
    """Fill a catalog with runs: three of each hundred failed, and the last one is in progress."""
    from engine.catalog import runs
    from engine.catalog.database import Catalog
    from engine.errors import CODE_COPY
    from engine.model.batch import Tally
    from engine.model.flow import Connection, Flow, Run, Secret
    from engine.model.run_record import FAILED, IN_PROGRESS, SUCCESS
    from engine.model.window import Window
    from engine.sync import run_records

    random = Random(7)
    project = Connection("http://127.0.0.1", "", Secret(""), 1)
    flows = [Flow(f"flow-{number}", project, "/data/events") for number in range(FLOWS)]
    with Catalog(home) as catalog, catalog.transaction() as connection:
        for number in range(history):
            flow, at = random.choice(flows), BEGIN + number * EVERY
            end = at + random.randrange(1_000, 60_000)
            day = datetime.fromtimestamp(at / 1000, UTC).date()
            run_id = f"{random.getrandbits(128):032x}"
            run = Run(run_id, flow.name, Window(day, day, (at - EVERY, at)), f"{number:026}", at)
            status = IN_PROGRESS if number == history - 1 else SUCCESS
            status = FAILED if number % 100 in (3, 33, 66) else status
            record = replace(
                run_records.scheduled(flow, flow.dataset, run, {}),
                status=status,
                updated_at=end,
                activities_at=end,
                params=None,
                copy_started=at,
                copy_completed=at + 900,
                promotion_started=at + 900,
                promotion_completed=None if status == IN_PROGRESS else end,
                tally=Tally(1000, 999, 1, reject_codes=Counter({"MAPPER-3700-400": 1})),
                failure=(CODE_COPY, "Mixpanel did not answer.") if status == FAILED else None,
                batch_folder=f"/data/events/_batches/{run.batch_id}",
            )
            runs.save(connection, record)


def main(argument: str) -> None:
    """Serve until SIGTERM."""
    from engine.config.file import Api
    from engine.control.api.server import Server
    from engine.model.flow import Secret

    key = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in MADE_BY)).hexdigest()[:12]
    cached = CACHE / "histories" / f"{argument}-{key}"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(CACHE) as folder:
            fill(folder / "home", int(argument))
            shutil.move(folder / "home", cached)
    now = BEGIN + int(argument) * EVERY
    server = Server(
        cached, Api(port=0, token=Secret(TOKEN)), {}, lambda: now, lambda: None, unready=tuple
    )
    server.start()
    print(server.address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
