"""Check that the wheel works without the repository around it."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from engine.sandbox import Sandbox, Spec
from tests.support.commands import DAYS, variables

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout; the build leaves no file in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    alone = ["--no-isolation"] if find_spec("hatchling") else []
    command = [sys.executable, "-m", "build", "--wheel", *alone, "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command = [*pip, "--disable-pip-version-check", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(events_per_day=50)) as running:
        yield running


def test_what_the_wheel_holds(wheel: Path) -> None:
    """The wheel has the package, marked as typed, and the shipped files; no test, no benchmark."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"engine/py.typed", "engine/cli/main.py", "engine/mixpanel/client.py"} <= names
    for folder in ("mappings", "schemas"):
        for path in (ROOT / folder).glob("*.json"):
            assert f"engine/{folder}/{path.name}" in names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"engine"}
    for path in (ROOT / "engine").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names


def test_the_wheel_works(installed: Path, sandbox: Sandbox, tmp_path: Path) -> None:
    """--help and a backfill with the shipped files work outside of the repository."""
    environment = os.environ | variables(sandbox.url) | {"PYTHONPATH": str(installed)}
    # -P: Python imports installed modules only, none from the working directory.
    command = [sys.executable, "-P", "-m", "engine"]

    def run(*words: str) -> str:
        done = subprocess.run(
            [*command, *words],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import engine; print(engine.__file__)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", where],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(found.stdout.strip()).is_relative_to(installed)
    assert "backfill" in run("--help")
    assert "150 rows" in run("backfill", *DAYS)
    assert len(list(tmp_path.glob("data/events/event_date=*/*.parquet"))) == 3
    # The console script runs the same program.
    command = [sys.executable, "-P", str(installed / "bin" / "mixpanel-etl")]
    assert "backfill" in run("--help")
    shown = json.loads(run("runs", "--json"))["items"]
    assert sum(one["metrics"]["recordSummary"]["outputRecordCount"] for one in shown) == 150
