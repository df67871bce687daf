"""docs/ describes the settings as they are: options, variables, keys, fields and figures."""

import json
import re
from pathlib import Path
from statistics import median

import pytest

from engine.config import file
from tests.support.commands import Run
from tests.support.pages import COMMANDS, OPTIONS, README, ROOT, rows, run_of_a_newcomer

CONFIGURATION = ROOT / "docs" / "configuration.md"


def test_every_option_is_described() -> None:
    """docs/configuration.md has each command with its options, and what each option means."""
    described = {row[0].strip("`"): row for row in rows(CONFIGURATION, "Commands")}
    for command in COMMANDS:
        if command:
            (options,) = described[command][2:]
            assert set(re.findall(r"`(--[\w-]+)`", options)) == COMMANDS[command], command
    named = [
        name
        for row in rows(CONFIGURATION, "Commands")
        for name in re.findall(r"`(--[\w-]+)`", row[0])
    ]
    assert sorted(named) == sorted(OPTIONS)


def test_every_variable_is_described() -> None:
    """docs/configuration.md has the variables that the program reads, and no other."""
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "engine").rglob("*.py"))
    described = [
        n
        for row in rows(CONFIGURATION, "Environment variables")
        for n in re.findall(r"`(\w+)`", row[0])
    ]
    read = set(re.findall(r'"([A-Z][A-Z_]+)"', source))
    assert set(described) <= read
    assert {name for name in read if name.startswith("MIXPANEL_")} <= set(described)


def test_the_variables_of_the_readme() -> None:
    """The README exports variables that the program reads."""
    described = {
        name for row in rows(CONFIGURATION, "Environment variables") for name in row[0].split("`")
    }
    exported = re.findall(r"^export (\w+)=", README.read_text("utf-8"), re.MULTILINE)
    assert {"MIXPANEL_USERNAME", "MIXPANEL_PASSWORD", "MIXPANEL_PROJECT_ID"} <= set(exported)
    assert set(exported) - {"PATH"} <= described


def test_every_field_is_described() -> None:
    """docs/table.md has the fields that a table of the shipped schema has."""
    schema = json.loads((ROOT / "schemas" / "mixpanel-events.json").read_text("utf-8"))
    described = rows(ROOT / "docs" / "table.md", "Columns")
    names = [name for row in described for name in re.findall(r"`(\w+)`", row[0])]
    fields = schema["properties"]["_extconndev"]["properties"]
    assert sorted(names) == sorted(["_extconndev", "unmapped", "event_date", *fields])


def test_the_figures_are_measured() -> None:
    """The figures of docs/performance.md are the medians of benchmarks/results."""
    text = (ROOT / "docs" / "performance.md").read_text("utf-8")
    for result in ("throughput", "memory"):
        stored = json.loads((ROOT / f"benchmarks/results/{result}.json").read_text("utf-8"))
        for each in stored["measurements"]:
            medians = {name: median(values) for name, values in each["figures"].items()}
            seconds, events = medians.get("seconds", 1), each["events"]
            if result == "throughput" and each["name"] in ("mixpanel-etl", "DuckDB COPY"):
                cells = [each["name"], f"{events:,}", f"{events / seconds:,.0f}", f"{seconds:.2f}"]
                cells += [f"{medians['cpu seconds']:.2f}", f"{medians['MiB']:.0f}"]
                assert f"| {' | '.join(cells)} |" in text
            elif each["group"] == "one window":
                assert f"| {events:,} | {medians['MiB together']:.0f} |" in text


# Keys of the configuration file ---------------------------------------------------------------

TABLES = {
    "Top level": "",
    "Connections": "connections.shop",
    "Flows": "flows.events",
    "Schedules": "flows.events.schedule",
    "Control plane": "api",
}
"""Headings of docs/configuration.md, and a table that has their keys."""


def keys(heading: str) -> dict[str, str]:
    """Return the keys under a heading, with their defaults."""
    return {row[0].strip("`"): row[2].strip("`") for row in rows(CONFIGURATION, heading)}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return run_of_a_newcomer(capsys, tmp_path, monkeypatch)


def test_every_key_is_described(run: Run) -> None:
    """docs/configuration.md has the keys that the program accepts, and no other, in each table;
    "required" are those without which it refuses the file.
    """
    text = "strange = 1\n"
    for table in filter(None, TABLES.values()):
        text += f"[{table}]\nstrange = 1\n" + 'frequency = "hour"\n' * ("schedule" in table)
    Path("strange.toml").write_text(text, "utf-8")
    said = run("check", "--config=strange.toml")
    assert said.status == 2
    for heading, table in TABLES.items():
        at = re.escape(f"{table}." if table else "")
        (allowed,) = re.findall(rf"toml: {at}strange: .*Allowed: (.*)$", said.err, re.MULTILINE)
        assert set(keys(heading)) == set(allowed.split(", ")), heading
        missing = set(re.findall(rf"toml: {at}(\w+): is missing", said.err))
        required = {key for key, default in keys(heading).items() if default == "required"}
        assert missing == required - {"frequency"} - ({"flows"} & required), heading


def test_every_default_is_true(tmp_path: Path) -> None:
    """A file that writes down each default of docs/configuration.md equals a file without them;
    a key without a default is empty there.
    """
    needed = {
        "Top level": "",
        "Connections": 'username = "a"\npassword = { env = "SECRET" }\nproject_id = 1\n',
        "Flows": 'connection = "shop"\ndataset = "table"\n',
        "Schedules": 'frequency = "hour"\ninterval = 1\n',
        "Control plane": "",
    }

    def loaded(defaults: bool) -> file.Config:
        path = tmp_path / "flows.toml"
        with path.open("w", encoding="utf-8") as target:
            for heading, table in TABLES.items():
                target.write(f"[{table}]\n{needed[heading]}" if table else "")
                for key, default in keys(heading).items() if defaults else ():
                    target.write("" if default in ("required", "-") else f"{key} = {default}\n")
        return file.load(path, {"SECRET": "secret"})

    found = loaded(defaults=True)
    assert found == loaded(defaults=False)
    for heading, declared in (("Flows", found.flows["events"]), ("Control plane", found.api)):
        empty = {key for key, default in keys(heading).items() if default == "-"} - {"schedule"}
        assert [key for key in empty if getattr(declared, key)] == []
