"""The README and the pages below docs/: blocks are run or checked, names and links exist."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import pytest
import typer

from engine.cli.main import app
from engine.config import file
from engine.sandbox import Sandbox, Spec
from tests.support.commands import Run, here, put, variables

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
INDEX = ROOT / "docs" / "index.md"
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text("utf-8")
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
LINKING = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
TEXTS = "\n".join(page.read_text("utf-8") for page in PAGES)
ENDLESS = ("daemon", "sandbox")  # they run until they are stopped
PROGRAMS = ("mixpanel-etl", "duckdb", "make")
ELSEWHERE = {
    "docs/tutorial-walk.md": "tests/scenarios/test_tutorial.py",
    "docs/control-plane.md": "tests/scenarios/test_tutorial.py",
}
"""Pages whose blocks of text another test checks."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page, in order: language and text."""
    text = page.read_text("utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands() -> dict[str, set[str]]:
    """Every command of the program, by its words, with its options; "" has those of all."""
    found: dict[str, set[str]] = {}

    def visit(command: Any, words: str) -> None:
        options = {name for each in command.params for name in each.opts if name[:2] == "--"}
        if not words or not hasattr(command, "commands"):
            found[words] = options - {"--help"}
        for name, each in getattr(command, "commands", {}).items():
            visit(each, f"{words} {name}".strip())

    visit(typer.main.get_command(app), "")
    return found


COMMANDS = commands()
ANYWHERE = {"--help", *COMMANDS[""]}
OPTIONS = ANYWHERE.union(*COMMANDS.values())


# Pages and links ----------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    """A stranger reads it once: at most 130 lines."""
    assert len(README.read_text("utf-8").splitlines()) <= 130


def links(page: Path) -> list[str]:
    """The links of a page that lead into the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [link for link in found if not re.match(r"https?:", link)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_links_resolve(page: Path) -> None:
    """Each link of a page leads to a file and, where it names one, to a heading of that file."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reachable() -> None:
    """From docs/index.md links lead to every page below docs/, and the README leads there."""
    reached, waiting = set(), [INDEX]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert set(PAGES) - {README} <= reached
    assert "docs/index.md" in links(README)


# Names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_files_exist(page: Path) -> None:
    """Every file of the repository that a page names exists."""
    top = "engine|tests|docs|mappings|schemas|benchmarks|deploy"
    named = re.findall(rf"`((?:{top})/[\w./-]*)`", page.read_text("utf-8"))
    named = [name for name in named if not name.startswith("benchmarks/cache/")]  # they are made
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_targets_exist() -> None:
    """Every `make …` of the pages is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXTS, re.MULTILINE)) <= targets


def spans(page: Path) -> Iterator[str]:
    """The code of a page: what stands in backticks, and the lines of its blocks."""
    yield from re.findall(r"`([^`\n]+)`", prose(page))
    for _, block in blocks(page):
        yield from block.replace("\\\n", " ").splitlines()


def command_in(words: list[str]) -> str | None:
    """The command that `words` begin with; None if they begin with another word."""
    found = [" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in COMMANDS]
    return found[0] if found else None


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    """Every command that a page names is one of the program's, with options that it has."""
    groups = {words.split()[0] for words in COMMANDS if " " in words}
    for span in spans(page):
        words = span.split()
        if words[:1] == ["mixpanel-etl"] and (words := words[1:]):
            assert command_in(words) or words[0] in groups | ANYWHERE, f"{page.name}: {span}"
        options = {word for word in words if re.fullmatch(r"--[a-z][a-z-]+", word)}
        command = command_in(words)
        assert command or len(words) < 2 or words[0] not in groups, f"{page.name}: {span}"
        allowed = OPTIONS if command is None else COMMANDS[command] | ANYWHERE
        if span.startswith(("--", "mixpanel-etl ")) or command:
            assert options <= allowed, f"{page.name}: {span}"


def rows(heading: str, text: str = CONFIGURATION) -> list[list[str]]:
    """The cells of the tables under a heading, without their heads."""
    (part,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^\| (`.*) \|$", part, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def test_every_option_is_described() -> None:
    """docs/configuration.md has each command with its options, and what each option means."""
    described = {row[0].strip("`"): row for row in rows("Commands")}
    for command in COMMANDS:
        if command:
            (options,) = described[command][2:]
            assert set(re.findall(r"`(--[\w-]+)`", options)) == COMMANDS[command], command
    named = [name for row in rows("Commands") for name in re.findall(r"`(--[\w-]+)`", row[0])]
    assert sorted(named) == sorted(OPTIONS)


def test_every_variable_is_described() -> None:
    """docs/configuration.md has the variables that the program reads, and no other."""
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "engine").rglob("*.py"))
    described = [n for row in rows("Environment variables") for n in re.findall(r"`(\w+)`", row[0])]
    read = set(re.findall(r'"([A-Z][A-Z_]+)"', source))
    assert set(described) <= read
    assert {name for name in read if name.startswith("MIXPANEL_")} <= set(described)


def test_every_field_is_described() -> None:
    """docs/table.md has the fields that a table of the shipped schema has."""
    _, schema = file.find("schema", "mixpanel-events")
    described = rows("Columns", (ROOT / "docs" / "table.md").read_text("utf-8"))
    names = [name for row in described for name in re.findall(r"`(\w+)`", row[0])]
    fields = schema["properties"]["_extconndev"]["properties"]
    assert sorted(names) == sorted(["_extconndev", "unmapped", "event_date", *fields])


def test_the_figures_are_measured() -> None:
    """Those of docs/performance.md are the medians of benchmarks/results."""
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
    """The keys under a heading, with their defaults."""
    return {row[0].strip("`"): row[2].strip("`") for row in rows(heading)}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("HOST", "USERNAME", "PASSWORD", "PROJECT_ID", "TIMEZONE", "ETL_HOME"):
        monkeypatch.delenv(f"MIXPANEL_{name}", raising=False)
    return here(capsys)


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


# Blocks ---------------------------------------------------------------------------------------


def test_every_block_is_checked() -> None:
    """A block is a command, code or configuration that is run, or the output of a command."""
    for page in PAGES:
        before = ""
        for language, text in blocks(page):
            assert language in ("sh", "python", "toml", "json", "text"), f"{page.name}: {text}"
            if language == "text" and name_of(page) not in ELSEWHERE:
                assert before == "sh", f"{page.name}: no command has this output: {text}"
            if language == "sh":  # zsh takes no comments where a person pastes them
                assert "#" not in text, f"{page.name}: {text}"
            before = language
    for test in ELSEWHERE.values():
        assert (ROOT / test).exists()


def parsed(block: str) -> list[list[str]]:
    """The commands of a block of shell as bash parses them. Any other program is not found."""
    functions = [f"{name}() {{ printf '%s\\0' {name} \"$@\"; echo; }}" for name in PROGRAMS]
    script = "\n".join([*functions, block])
    done = subprocess.run(
        ["/bin/bash", "-euc", script],
        env={"PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{done.stderr}"
    return [line.split("\0")[:-1] for line in re.findall(r"(?s)(.*?\0)\n", done.stdout)]


def output_of(words: list[str], run: Run) -> str:
    """What a command prints; it has to succeed."""
    program, *rest = words
    if program == "duckdb":
        option, query = rest
        assert option == "-c"
        return str(duckdb.sql(query))
    if program == "make" and rest == ["demo"]:
        rest = ["demo"]
    elif program == "make" or rest[0] in ENDLESS:  # their words are checked above
        return ""
    said = run(*rest)
    assert said.status == 0, f"{words}\n{said.err}"
    return said.out + said.err


def add_column(added: dict[str, Any]) -> None:
    """Do with the shipped mapping set and schema what docs/mapping.md says of a block of JSON."""
    kind = "mapping" if "sourceType" in added else "schema"
    _, document = file.find(kind, "mixpanel-events")
    if kind == "mapping":
        document["mappings"].append(added)
    else:
        document["properties"]["_extconndev"]["properties"].update(added)
    Path(f"my-{kind}.json").write_text(json.dumps(document), "utf-8")


def seen(text: str) -> list[str]:
    """The lines of a text, without what differs from one run to the next."""
    return [re.sub(r"[\d.]+ s$", "", " ".join(line.split())) for line in text.splitlines()]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(events_per_day=60, reject_percent=2)) as running:
        yield running


def pages_in_order() -> list[Path]:
    """The README, then the pages as docs/index.md lists them."""
    listed = [(INDEX.parent / link).resolve() for link in links(INDEX)]
    return [README, *dict.fromkeys(page for page in listed if page in PAGES)]


@pytest.mark.skipif(sys.platform == "win32", reason="the blocks are for a POSIX shell")
def test_every_block_runs(run: Run, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who follows the pages from the top meets no error: each command and each piece of
    Python succeeds, and prints what the page shows as its output.
    """
    ran, output = [], ""
    for page in pages_in_order():
        for language, block in blocks(page):
            if language == "toml" and page == README:
                Path("flows.toml").write_text(block, "utf-8")
            elif language == "sh":
                output = ""
                for words in parsed(block):
                    if words[1:] == ["check"]:  # by here, the README has set the variables
                        put(variables(sandbox.url), monkeypatch)
                    output += output_of(words, run)
                    ran.append(words)
            elif language == "json":
                add_column(json.loads(block))
            elif language == "python":
                exec(compile(block, page.name, "exec"), {"__name__": "__main__"})
            elif language == "text" and name_of(page) not in ELSEWHERE:
                assert set(seen(block)) <= set(seen(output)), f"{page.name}\n{output}"
    assert ["mixpanel-etl", "runs"] in ran
    cities = "SELECT 1 FROM 'data/mine/*/*.parquet' WHERE _extconndev.city IS NOT NULL"
    assert duckdb.connect().execute(cities).fetchall()


def test_the_variables_of_the_readme() -> None:
    """What the README exports are variables that the program reads."""
    described = {name for row in rows("Environment variables") for name in row[0].split("`")}
    exported = re.findall(r"^export (\w+)=", README.read_text("utf-8"), re.MULTILINE)
    assert {"MIXPANEL_USERNAME", "MIXPANEL_PASSWORD", "MIXPANEL_PROJECT_ID"} <= set(exported)
    assert set(exported) - {"PATH"} <= described


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_configurations_load(page: Path, tmp_path: Path) -> None:
    """A configuration on a page is one, with what the page shows as comments too."""
    environ = variables("https://data.mixpanel.com")
    environ |= {"ETL_TOKEN": "sixteen-and-more-letters", "ETL_KEY": "a Fernet key"}
    for number, block in enumerate(each for kind, each in blocks(page) if kind == "toml"):
        block = block.replace("/run/secrets", str(tmp_path))
        (tmp_path / "mixpanel").write_text("secret", "utf-8")
        options = re.findall(r"^# (\w+ = .*)$", block, re.MULTILINE)
        for text in (block, "\n".join([block, *options])):
            path = tmp_path / f"flows{number}.toml"
            path.write_text(text, "utf-8")
            found = file.load(path, environ)
            assert found.flows or found.api
