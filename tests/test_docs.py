"""The README and the pages below docs/: blocks are run or checked, names and links exist."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from engine.config import file
from engine.sandbox import Sandbox, Spec
from tests.support.commands import Run, put, variables
from tests.support.pages import (
    ANYWHERE,
    COMMANDS,
    INDEX,
    OPTIONS,
    PAGES,
    README,
    ROOT,
    blocks,
    links,
    name_of,
    prose,
    run_of_a_newcomer,
)

LINKING = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
TEXTS = "\n".join(page.read_text("utf-8") for page in PAGES)
ENDLESS = ("daemon", "sandbox")  # they run until they are stopped
PROGRAMS = ("mixpanel-etl", "duckdb", "make")
ELSEWHERE = {
    "docs/tutorial-walk.md": "tests/scenarios/test_tutorial.py",
    "docs/control-plane.md": "tests/scenarios/test_tutorial.py",
}
"""Pages whose blocks of text another test checks."""


# Pages and links ----------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    """The README has at most 130 lines, to be read once."""
    assert len(README.read_text("utf-8").splitlines()) <= 130


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
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
    """Yield the code of a page: the text in backticks, and the lines of its blocks."""
    yield from re.findall(r"`([^`\n]+)`", prose(page))
    for _, block in blocks(page):
        yield from block.replace("\\\n", " ").splitlines()


def command_in(words: list[str]) -> str | None:
    """Return the command that `words` start with, or None."""
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
    """Return the commands of a shell block as bash parses them. bash finds no other program."""
    functions = [f"{name}() {{ printf '%s\\0' {name} \"$@\"; echo; }}" for name in PROGRAMS]
    script = "\n".join([*functions, block])
    done = subprocess.run(
        ["/bin/bash", "-euc", script],
        env={"PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{done.stderr}"
    return [line.split("\0")[:-1] for line in re.findall(r"(?s)(.*?\0)\n", done.stdout)]


def output_of(words: list[str], run: Run) -> str:
    """Run a command, which has to succeed, and return what it prints."""
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
    """Add a block of JSON to the shipped mapping set or schema, as docs/mapping.md says."""
    kind = "mapping" if "sourceType" in added else "schema"
    shipped = ROOT / f"{kind}s" / "mixpanel-events.json"
    path = Path(f"my-{kind}.json")
    document = json.loads((path if path.exists() else shipped).read_text("utf-8"))
    if kind == "mapping":
        document["mappings"].append(added)
    else:
        document["properties"]["_extconndev"]["properties"].update(added)
    path.write_text(json.dumps(document), "utf-8")


def seen(text: str) -> list[str]:
    """Return the lines of a text, without spacing and times."""
    return [re.sub(r"[\d.]+ s$", "", " ".join(line.split())) for line in text.splitlines()]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return run_of_a_newcomer(capsys, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(events_per_day=60, reject_percent=2)) as running:
        yield running


def pages_in_order() -> list[Path]:
    """Return the README, then the pages in the order of docs/index.md."""
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
