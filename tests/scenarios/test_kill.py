"""kill -9 at a random moment and the same command again give the table of an undisturbed run.

KILLS=100 python -m pytest tests/scenarios/test_kill.py runs a hundred of them instead of a few.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox, Spec
from tests.support.pulling import pull, rows

SPEC = Spec(events_per_day=4000, duplicate_percent=3, reject_percent=0.5)
DAYS = [date(2024, 1, day) for day in (1, 2, 3)]
# As the command does it with much to read: a second process reads as well.
WITH_A_TWIN = (
    "from engine.transform import second_process; second_process.WORTH = 0; "
    "from engine.cli.main import main; main()"
)
TRIALS = range(int(os.environ.get("KILLS", "6")))
COMMAND = ["backfill", "--from-date=2024-01-01", "--to-date=2024-01-03", "--days-per-request=1"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SPEC) as running:
        yield running


@pytest.fixture(scope="module")
def expected(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("undisturbed") / "table"
    assert pull(sandbox.url, root, DAYS).statuses == ["success", "success"]
    return rows(root)


def start(
    sandbox: Sandbox, folder: Path, *options: str, twin: bool = False
) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "MIXPANEL_HOST": sandbox.url,
        "MIXPANEL_USERNAME": USERNAME,
        "MIXPANEL_PASSWORD": PASSWORD,
        "MIXPANEL_PROJECT_ID": str(PROJECT_ID),
        "MIXPANEL_ETL_HOME": str(folder / "home"),
    }
    program = ["-c", WITH_A_TWIN] if twin else ["-m", "engine"]
    command = [sys.executable, *program, *COMMAND, "--dataset", str(folder / "table")]
    return subprocess.Popen(
        [*command, *options], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()


def kill_somewhere(process: subprocess.Popen[bytes], folder: Path, dice: random.Random) -> None:
    """Kill at any moment of the command, or within the few ms of a commit."""
    if dice.random() < 0.5:
        wait = dice.uniform(0.0, 2.5)
    else:
        deadline = time.monotonic() + 10
        staging = folder / "table" / "_staging"
        while process.poll() is None and time.monotonic() < deadline:
            batches = [*staging.iterdir()] if staging.exists() else []
            if any((batch / "intent.json").exists() for batch in batches):
                break
        wait = dice.uniform(0.0, 0.03)
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()


@pytest.mark.parametrize("trial", TRIALS)
def test_killed_and_started_again(
    sandbox: Sandbox, expected: list[str], tmp_path: Path, trial: int
) -> None:
    """P2, P4: one to three kills, with one worker or two, on a new table or a full one."""
    dice = random.Random(trial)
    twin = trial % 2 == 1
    options = dice.choice([[], ["--workers", "2"], ["--force"]])
    if "--force" in options:
        finish(start(sandbox, tmp_path))
    for _ in range(dice.choice([1, 1, 2, 3])):
        kill_somewhere(start(sandbox, tmp_path, *options, twin=twin), tmp_path, dice)
    finish(start(sandbox, tmp_path, *options, twin=twin))
    assert rows(tmp_path / "table") == expected
    left = [path.name for path in (tmp_path / "table" / "_staging").iterdir()]
    assert left == ["lock"]
    check_records(tmp_path)


def check_records(folder: Path) -> None:
    """P3: no run stays open, and the newest run records add up to the rows of the table."""
    shown = subprocess.run(
        [sys.executable, "-m", "engine", "runs", "--json", "--limit", "1000"],
        env={**os.environ, "MIXPANEL_ETL_HOME": str(folder / "home")},
        capture_output=True,
        check=True,
    )
    newest: dict[int, int] = {}
    for item in json.loads(shown.stdout)["items"]:
        status = item["metrics"]["statusSummary"]["status"]
        assert status in ("success", "failed")
        if status == "success":
            start_ms = item["activities"][0]["durationSummary"]["extensions"]["windowStart"]
            newest.setdefault(start_ms, item["metrics"]["recordSummary"]["outputRecordCount"])
    assert sum(newest.values()) == len(rows(folder / "table"))
