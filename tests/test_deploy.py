"""Check the systemd unit and the container file: they start an existing command, without root."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import pytest

from engine.cli.main import app

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "deploy" / "mixpanel-etl.service"
CONTAINER = ROOT / "deploy" / "Containerfile"


def known(words: list[str]) -> bool:
    """Return whether these words are a command of the program, with options that it has."""
    import typer

    (command,) = [c for n, c in typer.main.get_command(app).commands.items() if n == words[0]]  # type: ignore[attr-defined]
    options = {name for parameter in command.params for name in parameter.opts}
    return {word for word in words[1:] if word.startswith("--")} <= options


def test_the_unit() -> None:
    """The unit runs the daemon as a separate user that may write to one folder."""
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
    assert int(service["TimeoutStopSec"]) > 10  # the seconds that the daemon gives a window to end


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """systemd-analyze accepts the unit, with an existing program."""
    text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text())
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_container_file() -> None:
    """The container starts the console script, with existing options, not as root."""
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


def patterns(file: str) -> list[str]:
    lines = (ROOT / file).read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def expression(pattern: str) -> str:
    """Return a pattern of .dockerignore as a regular expression over paths."""
    parts = re.split(r"(\*\*/|\*|\?)", pattern.rstrip("/"))
    meant = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    return "".join(meant.get(part) or re.escape(part) for part in parts)


def is_let_in(path: str) -> bool:
    """Return whether a build gets a file: the last pattern that matches it or its folder counts."""
    folders = [str(parent) for parent in PurePosixPath(path).parents if parent.name]
    let_in = True
    for pattern in patterns(".dockerignore"):
        meant = re.compile(expression(pattern.removeprefix("!")))
        if any(meant.fullmatch(name) for name in [path, *folders]):
            let_in = pattern.startswith("!")
    return let_in


SECRETS = [
    ".git/config", ".env", ".env.local", "engine/.env", "api.token", "secrets.key", "password",
    ".mixpanel-etl/api.token", ".mixpanel-etl/secrets.key", "engine/secrets.key", "mappings/x.pem",
    "flows.toml", "engine/flows.toml", "deploy/password", "data/events/x.parquet", ".netrc",
    "engine/.mixpanel-etl/catalog.sqlite3", "catalog.sqlite3-wal", "engine/credentials.json",
    "schemas/my-password.txt", ".venv/bin/python", "tests/fixtures/x.json", "id_rsa",
]  # fmt: skip


@pytest.mark.parametrize("path", SECRETS)
def test_no_secret_gets_into_a_container(path: str) -> None:
    """P7: no file with a secret gets into an image, whose layers all its users can read."""
    assert not is_let_in(path)


def test_nothing_that_git_ignores_gets_into_a_container() -> None:
    """A file that git ignores is not copied into an image, wherever it is."""
    for pattern in patterns(".gitignore"):
        name = pattern.strip("/").replace("*", "x")
        for folder in ("", "engine/", "mappings/deeper/"):
            if not folder or "/" not in pattern.rstrip("/"):
                assert not is_let_in(f"{folder}{name}"), pattern
                assert not is_let_in(f"{folder}{name}/file"), pattern


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is not a clone")
def test_a_container_gets_what_the_program_is_made_of(tmp_path: Path) -> None:
    """The copied files build a wheel with the package, the mapping sets and the schemas."""
    lines = CONTAINER.read_text().splitlines()
    copies = [
        line.split()[1:] for line in lines if line.startswith("COPY ") and "--from" not in line
    ]
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    ours = done.stdout.splitlines()
    for relative in filter(is_let_in, ours):
        for *sources, target in copies:
            for source in sources:
                within = relative == source and target.endswith("/")
                if within or relative.startswith(f"{source}/"):
                    to = tmp_path / "source" / relative
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / relative, to)
    assert (tmp_path / "source" / "constraints.txt").exists()
    alone = ["--no-isolation"] if find_spec("hatchling") else []
    built = tmp_path / "built"
    command = [sys.executable, "-m", "build", "--wheel", *alone, "--outdir", str(built)]
    done = subprocess.run(
        [*command, str(tmp_path / "source")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {path for path in ours if path.startswith("engine/")} <= names
    assert {"engine/mappings/mixpanel-events.json", "engine/schemas/mixpanel-events.json"} <= names


def test_nothing_is_installed_by_a_name_that_no_registry_has() -> None:
    """No text installs the program by name: a package index may have another one of that name."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    for path in (UNIT, CONTAINER, ROOT / "Makefile", *pages):
        for line in path.read_text().replace("\\\n", " ").splitlines():
            if found := re.search(r"pip install (.*)", line):
                assert not re.search(r"(?<![/\w-])mixpanel-etl(?![/\w])", found[1]), line
