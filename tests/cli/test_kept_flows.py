"""The commands on flows that a home keeps: applied from a file, shown beside those of another."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from engine.catalog.database import Catalog
from engine.catalog.resources import Resources
from engine.model.flow import flow_id
from tests.support.commands import Run, here, put

CONNECTION = """
[connections.shop]
username = { env = "WHO" }
password = { env = "WHAT" }
project_id = 2384945
"""
FLOW = """
[flows.{name}]
connection = "shop"
dataset = "data/{name}"
schedule = {{ frequency = "minute", interval = 15, start_time = 1625040887 }}
"""
PASSWORD = "8iQbnjuk5-of-nobody"


def write(path: str, *names: str, more: str = "") -> None:
    """A configuration with these flows."""
    flows = "".join(FLOW.format(name=name) for name in names)
    Path(path).write_text(f'home = "home"\n{more}{CONNECTION}{flows}')


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Commands, where `own.toml` has one flow and `other.toml` two, of the same home."""
    monkeypatch.chdir(tmp_path)
    put({"WHO": "reader", "WHAT": PASSWORD, "MIXPANEL_ETL_HOME": ""}, monkeypatch)
    write("own.toml", "first")
    write("other.toml", "second", "third")
    return here(capsys)


def flows(run: Run, *words: str) -> list[str]:
    """The flows that a command shows."""
    said = run(*words, "--json")
    assert said.status == 0, said.err
    return [each["flow"] for each in json.loads(said.out)]


def test_apply(run: Run) -> None:
    """`apply` prints a line for each resource that it changes; a second one changes nothing."""
    said = run("apply", "other.toml")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert {line.split()[0] for line in lines} == {"made"}
    assert f"made flows {flow_id('second')}" in lines
    assert len(lines) == 14
    again = run("apply", "other.toml")
    assert (again.status, again.out, again.err) == (0, "", "Nothing changed.\n")
    write("other.toml", "third")
    lines = run("apply", "other.toml").out.splitlines()
    assert {line.split()[0] for line in lines} == {"removed"}
    assert len(lines) == 7
    os.environ["WHAT"] = "another-password"
    (line,) = run("apply", "other.toml").out.splitlines()
    assert line.startswith("changed connections ")


def test_no_secret_is_kept_in_clear(run: Run) -> None:
    """P7: no file of the home and no command shows a secret that was applied."""
    told = [
        run("apply", "other.toml"),
        run("status", "--home=home"),
        run("plan", "--config=own.toml"),
    ]
    assert not [said for said in told if PASSWORD in said.out + said.err]
    for path in Path("home").iterdir():
        assert PASSWORD.encode() not in path.read_bytes()


def test_a_file_that_is_wrong(run: Run) -> None:
    """`apply` of a wrong file fails with its problems, and the stored flows stay."""
    run("apply", "other.toml")
    write("other.toml", "third", more="unknown = 1\n")
    said = run("apply", "other.toml")
    assert (said.status, said.out) == (2, "")
    assert "unknown: is not known here" in said.err
    assert run("apply", "nowhere.toml").status == 2
    assert flows(run, "status", "--home=home") == ["second", "third"]


@pytest.mark.parametrize("command", [["status"], ["plan"], ["positions", "show"]])
def test_both_kinds_are_shown(run: Run, command: list[str]) -> None:
    """--config selects its flows and those of its home that other files declared."""
    run("apply", "other.toml")
    assert flows(run, *command, "--config=own.toml") == ["first", "second", "third"]
    assert flows(run, *command, "--config=other.toml") == ["second", "third"]
    run("apply", "own.toml")
    assert flows(run, *command, "--config=own.toml") == ["first", "second", "third"]
    assert flows(run, *command, "--config=own.toml", "--flow=third") == ["third"]


def test_one_of_them_by_name(run: Run) -> None:
    """--flow may name a flow that is stored in the home."""
    run("apply", "other.toml")
    said = run("positions", "reset", "--config=own.toml", "--flow=third", "--yes")
    assert (said.status, "Nothing to forget" in said.err) == (0, True)
    said = run("positions", "reset", "--config=own.toml", "--flow=nobody", "--yes")
    assert said.status == 2
    assert 'no flow "nobody". It has: first, second, third.' in said.err


def test_status_of_a_home(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` without --config lists the flows of the home of --home or the environment."""
    run("apply", "other.toml")
    assert flows(run, "status", "--home=home") == ["second", "third"]
    monkeypatch.setenv("MIXPANEL_ETL_HOME", "home")
    assert flows(run, "status") == ["second", "third"]
    assert flows(run, "status", "--flow=third") == ["third"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--home=nowhere"], "Error: nowhere does not exist."),
        (["--home=other.toml"], "Error: other.toml is not a folder"),
        (
            ["--home=empty"],
            "Error: empty has no flow. Declare one in a configuration file, or apply",
        ),
        (["--home=home", "--flow=x"], 'home has no flow "x". It has: second, third.'),
        (["--home=home", "--config=own.toml"], "leave --home out"),
        ([], "Error: .mixpanel-etl does not exist."),
        (["--config="], "--config names no file"),
    ],
)
def test_status_of_nothing(run: Run, words: list[str], told: str) -> None:
    """`status` without a flow or a home is an error, and makes no home."""
    run("apply", "other.toml")
    Path("empty").mkdir()
    said = run("status", *words)
    assert (said.status, said.out) == (2, "")
    assert told in said.err
    assert not Path("nowhere").exists()
    assert not Path(".mixpanel-etl").exists()


def test_what_cannot_run(run: Run) -> None:
    """`status` reports a stored flow that shares a table or whose password cannot be decrypted."""
    run("apply", "other.toml")
    text = Path("own.toml").read_text()
    Path("own.toml").write_text(text.replace("data/first", "data/third"))
    said = run("status", "--config=own.toml")
    assert said.status == 1
    assert 'third: Flow "first" of own.toml has its name or its table.' in said.err
    assert [line.split("\t")[0] for line in said.out.splitlines()[1:]] == ["first", "second"]
    assert "third: Flow" in run("plan", "--config=own.toml").err
    key = Path("home") / "secrets.key"
    key.unlink()
    said = run("status", "--home=home")
    assert said.status == 1
    assert said.err.count("home/secrets.key, cannot be read") == 2
    assert not key.exists()
    key.write_bytes(Fernet.generate_key())
    assert run("status", "--home=home").err.count("another key") == 2


def test_the_key_of_the_configuration(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the file replaces the home's; without it no stored secret can be decrypted."""
    monkeypatch.setenv("ETL_KEY", Fernet.generate_key().decode())
    api = '[api]\nkey = { env = "ETL_KEY" }\n'
    write("other.toml", "second", more=api)
    write("own.toml", "first", more=api)
    assert run("apply", "other.toml").status == 0
    assert not (Path("home") / "secrets.key").exists()
    assert flows(run, "status", "--config=own.toml") == ["first", "second"]
    assert "name the configuration whose [api] gives one" in run("status", "--home=home").err
    assert not (Path("home") / "secrets.key").exists()


def test_a_flow_of_nobodys_file(run: Run) -> None:
    """A flow that a client made is listed by its id."""
    run("apply", "other.toml")
    with Catalog(Path("home")) as catalog:
        resources = Resources(catalog)
        (one, _) = resources.all("flows")
        edit = partial(replace, origin=None)
        resources.change("flows", one.id, None, 1, lambda before: (edit(before), []))
    assert flows(run, "status", "--home=home") == [one.id, "third"]
    assert flows(run, "plan", "--config=own.toml", f"--flow={one.id}") == [one.id]
