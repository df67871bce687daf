"""`python -m benchmarks [throughput | memory] [--events N …] [--runs N] [--shape S]`.

Every run is a process of its own, against a sandbox in another one that serves a pre-made, already
compressed day. A and B run in turn, so that a machine that slows down slows both; compare ratios.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME

DAY = "2024-01-01"
CACHE = Path(__file__).parent / "cache"
COPY = """
import duckdb, sys
duckdb.execute("SET threads = 2")
duckdb.execute(f\"\"\"
COPY (SELECT event, properties.* FROM read_ndjson('{sys.argv[1]}', columns = {{
    event: 'VARCHAR', properties: 'STRUCT("time" BIGINT, distinct_id VARCHAR,
        "$insert_id" VARCHAR, "$import" BOOLEAN, "$mp_api_endpoint" VARCHAR,
        "$mp_api_timestamp_ms" BIGINT, item_id VARCHAR, item_name VARCHAR, item_price VARCHAR,
        mp_processing_time_ms BIGINT)'}}))
TO '{sys.argv[2]}' (FORMAT parquet, COMPRESSION zstd)\"\"\")
"""


@dataclass(frozen=True)
class Spent:
    """What one process took: seconds on the clock, seconds of processor, and peak MiB."""

    wall: float
    cpu: float
    mib: float


def spend(command: list[str], environment: dict[str, str]) -> Spent:
    """Run `command` to its end, as the operating system accounts for it."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{' '.join(command[:4])} … failed: {said}")
    return Spent(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


@contextmanager
def serving(shape: str, events: int) -> Iterator[str]:
    """The sandbox in a process of its own; gives its address once the day is in its cache."""
    command = [sys.executable, "-m", "engine.sandbox", "--port", "0", "--shape", shape]
    command += ["--events-per-day", str(events), "--cache-dir", str(CACHE)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def download(url: str, path: Path) -> None:
    """Keep the day's compressed bytes, for those that read files. Fills the sandbox's cache too."""
    address = f"{url}/api/2.0/export?project_id={PROJECT_ID}&from_date={DAY}&to_date={DAY}"
    login = b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    headers = {"Accept-Encoding": "gzip", "Authorization": f"Basic {login}"}
    with urlopen(Request(address, headers=headers)) as answer, path.open("wb") as file:
        while chunk := answer.read(1 << 20):
            file.write(chunk)


def ours(url: str, folder: Path) -> Spent:
    """The whole command, everything on, into a new table."""
    environment = {
        "MIXPANEL_HOST": url,
        "MIXPANEL_USERNAME": USERNAME,
        "MIXPANEL_PASSWORD": PASSWORD,
        "MIXPANEL_PROJECT_ID": str(PROJECT_ID),
        "MIXPANEL_ETL_HOME": str(folder / "home"),
    }
    command = [sys.executable, "-m", "engine", "backfill", "--from-date", DAY, "--to-date", DAY]
    return spend([*command, "--dataset", str(folder / "table")], environment)


def duckdb(source: Path, folder: Path) -> Spent:
    """DuckDB's own way from the same bytes to Parquet: nothing mapped, checked or committed."""
    return spend([sys.executable, "-c", COPY, str(source), str(folder / "x.parquet")], {})


def throughput(shape: str, events: int, runs: int) -> None:
    """Rows a second of ours and of DuckDB, in turn, after one run of each that is not counted."""
    pairs: list[tuple[Spent, Spent]] = []
    with tempfile.TemporaryDirectory() as folder, serving(shape, events) as url:
        source = Path(folder) / "day.ndjson.gz"
        download(url, source)
        for index in range(runs + 1):
            a, b = Path(folder) / f"a{index}", Path(folder) / f"b{index}"
            b.mkdir()
            pair = ours(url, a), duckdb(source, b)
            pairs += [pair] if index else []
    print(f"{shape}, {events:,} events, {runs} runs in turn, medians")
    for name, spent in zip(("mixpanel-etl", "DuckDB COPY"), zip(*pairs, strict=True), strict=True):
        wall = statistics.median(one.wall for one in spent)
        cpu = statistics.median(one.cpu for one in spent)
        mib = max(one.mib for one in spent)
        rate = events / wall
        print(f"  {name:14} {rate:10,.0f} rows/s  {wall:6.2f} s  {cpu:6.2f} s CPU  {mib:5.0f} MiB")
    ratios = sorted(b.wall / a.wall for a, b in pairs)
    middle = statistics.median(ratios)
    print(f"  ratio of rows/s {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def memory(shape: str, counts: list[int]) -> None:
    """Peak RSS of one window, at each number of events."""
    for events in counts:
        with tempfile.TemporaryDirectory() as folder, serving(shape, events) as url:
            download(url, Path(folder) / "day.ndjson.gz")
            spent = ours(url, Path(folder) / "ours")
        print(f"{shape}, one window of {events:,} events: {spent.mib:.0f} MiB at the peak")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["throughput", "memory", "all"], default="all")
    parser.add_argument("--events", type=int, nargs="+", default=[500_000, 2_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--shape", choices=["small", "wide", "typed"], default="small")
    given = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    if given.what in ("throughput", "all"):
        throughput(given.shape, given.events[-1], given.runs)
    if given.what in ("memory", "all"):
        memory(given.shape, given.events)


if __name__ == "__main__":
    main()
