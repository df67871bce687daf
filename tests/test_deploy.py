"""The systemd unit and the container file: they start what is there, without root."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from engine.cli import app

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "deploy" / "mixpanel-etl.service"
CONTAINER = ROOT / "deploy" / "Containerfile"


def known(words: list[str]) -> bool:
    """Whether these words are a command of the program, with options that it has."""
    import typer

    (command,) = [c for n, c in typer.main.get_command(app).commands.items() if n == words[0]]  # type: ignore[attr-defined]
    options = {name for parameter in command.params for name in parameter.opts}
    return {word for word in words[1:] if word.startswith("--")} <= options


def test_the_unit() -> None:
    """It runs the daemon as a user of its own that may write in one place."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    program, *words = service["ExecStart"].split()
    assert Path(program).name == "mixpanel-etl"
    assert known(words)
    assert service["User"] not in ("", "root")
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert "HUP" in service["ExecReload"]
    assert int(service["TimeoutStopSec"]) > 10  # what the daemon gives a window to end in


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """systemd itself finds nothing wrong, with a program that is there."""
    text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text())
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_container_file() -> None:
    """It starts the console script as a user that is not root, and copies what exists."""
    lines = CONTAINER.read_text().replace("\\\n", " ").splitlines()
    said = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    users = [rest for word, _, rest in said if word == "USER"]
    assert users
    assert not re.match(r"root|0\b", users[-1])
    (entry,) = [json.loads(rest) for word, _, rest in said if word == "ENTRYPOINT"]
    (command,) = [json.loads(rest) for word, _, rest in said if word == "CMD"]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert Path(entry[0]).name in scripts
    assert known(command)
    order = [word for word, _, _ in said]
    assert len(order) - 1 - order[::-1].index("USER") < order.index("ENTRYPOINT")
