"""A catalog of version 0.1 is migrated whole or not at all, and shows what it showed before."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from engine.catalog import runs
from engine.catalog.database import NAME, Catalog
from engine.control.api.app import FLOWSERVICE, app_of
from engine.control.api.app_state import AppState
from engine.control.run_payload import envelope
from engine.control.secrets import secret_store_of
from engine.errors import EtlError, InputError
from engine.model.flow import Secret
from engine.model.run_record import FAILED, SUCCESS
from engine.sync.status import FlowStatus
from tests.catalog.test_database import whole
from tests.support.pulling import flow_of

FIXTURES = Path(__file__).parent / "fixtures"
ROOT = Path(__file__).parents[2]
SHOWN: dict[str, Any] = json.loads((FIXTURES / "catalog_0_1.json").read_text("utf-8"))
KEY = Secret("A" * 43 + "=")
RESOURCES = ("resources", "uses", "requests", "totals")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the catalog of version 0.1."""
    with closing(sqlite3.connect(tmp_path / NAME)) as file:
        file.executescript((FIXTURES / "catalog_0_1.sql").read_text("utf-8"))
    return tmp_path


def test_the_history_is_as_it_was(home: Path) -> None:
    """`runs --json` prints the same bytes."""
    with Catalog(home) as catalog:
        assert json.dumps(envelope(catalog.history())) == json.dumps(SHOWN["runs --json"])


def test_the_control_plane_shows_what_it_showed(home: Path) -> None:
    """Lists of runs, filtered and ordered, the last run of a flow, and the metrics are the same."""
    with Catalog(home) as catalog:
        plane = AppState(
            home, catalog, secret_store_of(home, KEY), home / "datasets", {},
            lambda: SHOWN["now"], lambda: None,
        )  # fmt: skip
        client = TestClient(app_of(plane))
        for path in (path for path in SHOWN if path.startswith("/runs")):
            assert client.get(f"{FLOWSERVICE}{path}").json() == SHOWN[path]
        flows = client.get(f"{FLOWSERVICE}/flows").json()["items"]
        last = {item["name"]: item.get("lastRunDetails") for item in flows}
        assert last == SHOWN["last runs of /flows"]
        metrics = client.get("/metrics").text.splitlines()
        assert [line for line in SHOWN["/metrics"] if line[0] != "#"] == [
            line for line in metrics if line[0] != "#"
        ]


def test_the_status_of_its_flows_is_as_it_was(home: Path) -> None:
    """`status` shows the same last run, its error and the rejects of the last day."""
    with Catalog(home) as catalog:
        for expected in SHOWN["status --json"]:
            flow = flow_of("http://127.0.0.1", home / "table", name=expected["flow"])
            shown = FlowStatus(flow, catalog, SHOWN["now"]).as_json()
            last = expected["lastRun"]
            if last["status"] == "inProgress":  # no process has the lock of the table
                last = last | {"status": "interrupted"}
            assert shown["lastRun"] == last
            assert shown["rejectedLastDay"] == expected["rejectedLastDay"]


def test_nothing_but_the_runs_changes(home: Path) -> None:
    """Resources, requests and totals stay row by row; opening the file again changes nothing."""
    before = whole(home)
    Catalog(home).close()
    after = whole(home)
    assert {name: after[name] for name in RESOURCES} == {name: before[name] for name in RESOURCES}
    assert len(after["runs"]) == len(before["runs"]) == 19
    assert "old_runs" not in after
    with Catalog(home) as catalog:
        rows = catalog.read("SELECT id FROM runs ORDER BY rowid")
    assert [id_ for (id_,) in rows] == [
        item["id"] for item in reversed(SHOWN["runs --json"]["items"])
    ]
    assert whole(home) == after


def test_a_run_that_was_in_progress_is_abandoned_as_ever(home: Path) -> None:
    """The next start on the table fails a run that version 0.1 left in progress."""
    with Catalog(home) as catalog:
        assert catalog.abandon("/srv/mixpanel-etl/data/plain", SHOWN["now"]) == 1
        assert {run.status for run in catalog.history(limit=1)} == {FAILED}
        assert len(catalog.history(status=SUCCESS)) == 10


def break_put(put: Callable[..., None], broken: Callable[[], None]) -> Callable[..., None]:
    """Return a `put` that raises at its seventh row."""
    left = 7

    def breaking(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            broken()
        put(*arguments)

    return breaking


def test_a_statement_that_fails_leaves_the_file_as_it_was(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The migration is one transaction: after an error the next start repeats it."""
    before = whole(home)

    def broken() -> None:
        raise sqlite3.OperationalError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "put", break_put(runs.put, broken))
        with pytest.raises(EtlError, match="the disk is full"):
            Catalog(home)
    assert whole(home) == before
    test_the_history_is_as_it_was(home)


def test_a_kill_leaves_the_file_as_it_was(home: Path) -> None:
    """After kill -9 in the middle of the rows, the next start migrates the file."""
    before = whole(home)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from engine.catalog import runs; from engine.catalog.database import Catalog\n"
        "from tests.catalog.test_migration import break_put\n"
        "runs.put = break_put(runs.put, lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
        "Catalog(Path(sys.argv[1]))\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(home)], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    assert whole(home) == before
    test_the_history_is_as_it_was(home)


@pytest.mark.parametrize("item", ["{}", "no JSON", '{"metrics": []}'])
def test_a_run_that_cannot_be_read_stops_the_migration(home: Path, item: str) -> None:
    """The error names the file, and the file is not changed."""
    with closing(sqlite3.connect(home / NAME)) as file, file:
        file.execute("UPDATE runs SET item = ? WHERE rowid = 9", [item])
    before = whole(home)
    with pytest.raises(InputError, match=rf"{NAME} cannot be read"):
        Catalog(home)
    assert whole(home) == before
