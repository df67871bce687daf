"""Other programs for the same job, each installed on request in an environment of its own.

A driver is a program in this folder that runs in such an environment; `driver` describes its
argument and its output.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import Failed, Spent, spend
from benchmarks.rounds import Contender
from benchmarks.server import CACHE, FIRST, LOGIN
from benchmarks.shapes import mapped, names
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME

ENVIRONMENTS = CACHE / "venvs"
QUIET = {"DISABLE_TELEMETRY": "true", "RUNTIME__DLTHUB_TELEMETRY": "false"}
ALL, NONE = "all", "none"


@dataclass(frozen=True, slots=True)
class Peer:
    """A program of others. `events` is the number that it pulls in about a minute."""

    key: str
    name: str
    needs: tuple[str, ...]
    events: int

    @property
    def folder(self) -> Path:
        """Return the folder of the peer's environment."""
        return ENVIRONMENTS / self.key


PEERS = (
    Peer("dlt", "dlt 1.31.0 + Pydantic", ("dlt[parquet]==1.31.0", "pydantic==2.14.3"), 1_000_000),
    Peer("headless", "mixpanel-headless 0.4.0 + pyarrow",
         ("mixpanel-headless==0.4.0", "pyarrow==26.0.1"), 500_000),
    Peer("tap", "tap-mixpanel 1.8.0, no target", ("tap-mixpanel==1.8.0",), 100_000),
    Peer("airbyte", "airbyte-source-mixpanel 4.0.2, no destination",
         ("airbyte-source-mixpanel==4.0.2",), 20_000),
    Peer("ingestr", "ingestr 0.14.155 into DuckDB", ("ingestr==0.14.155",), 100_000),
)  # fmt: skip


def chosen(keys: Sequence[str]) -> list[Peer]:
    """Return the peers of these names, `all` or `none`. Raise Failed for an unknown name."""
    if list(keys) == [ALL]:
        return list(PEERS)
    if list(keys) == [NONE]:
        return []
    known = {peer.key: peer for peer in PEERS}
    if unknown := [key for key in keys if key not in known]:
        names = ", ".join([*known, ALL, NONE])
        raise Failed(f"--peers {unknown[0]} is not one of {names}")
    return [known[key] for key in dict.fromkeys(keys)]


def install(peer: Peer, pip: Iterable[str] = ()) -> None:
    """Install the peer in its environment, unless it is there; `pip` are more options for pip.

    Raise Failed if pip fails.
    """
    mark = peer.folder / "installed"
    if mark.exists() and mark.read_text("utf-8").split() == list(peer.needs):
        return
    shutil.rmtree(peer.folder, ignore_errors=True)
    python = str(peer.folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(peer.folder)],
        [*install, *pip, *peer.needs],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(peer.folder, ignore_errors=True)
            raise Failed("it cannot be installed here", done.stderr.strip())
    mark.write_text("\n".join(peer.needs), "utf-8")


def contender(peer: Peer, url: str, shape: str, lines: int) -> Contender:
    """Return the peer as a contender that pulls the first day, `lines` of `shape`, from `url`."""
    driver = Path(__file__).with_name(f"drive_{peer.key}.py")

    def run(folder: Path) -> tuple[Spent, int]:
        argument = {
            "url": url,
            "username": USERNAME,
            "password": PASSWORD,  # the sandbox's, public
            "authorization": LOGIN,
            "project_id": PROJECT_ID,
            "first": FIRST,
            "last": FIRST,
            "folder": str(folder),
            "columns": mapped(shape),
            "properties": names(shape),
        }
        home = {"HOME": str(folder), "DLT_DATA_DIR": str(folder / "dlt")}  # no user's settings
        spent = spend(
            [str(peer.folder / "bin" / "python"), str(driver), json.dumps(argument)],
            QUIET | home,
            folder=folder,
        )
        try:
            return spent, int(json.loads(spent.said.strip().splitlines()[-1])["rows"])
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise Failed(f"{peer.name} did not say how many rows it made") from error

    return Contender(peer.name, lines, run)
