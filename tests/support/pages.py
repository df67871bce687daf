"""Read the documents: their blocks, links and tables; list the commands of the program."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from engine.cli.main import app
from tests.support.commands import Run, here

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
INDEX = ROOT / "docs" / "index.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page, in order: language and text."""
    text = page.read_text("utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands() -> dict[str, set[str]]:
    """Return the options of each command, by its words; "" has those of all commands."""
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


def links(page: Path) -> list[str]:
    """Return the links of a page that lead into the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [link for link in found if not re.match(r"https?:", link)]


def rows(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the tables under a heading of a page, without the heads of the tables."""
    text = page.read_text("utf-8")
    (part,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^\| (`.*) \|$", part, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def run_of_a_newcomer(
    capsys: pytest.CaptureFixture[str], folder: Path, patch: pytest.MonkeyPatch
) -> Run:
    """Return what runs a command in `folder`, without any variable of the program."""
    patch.chdir(folder)
    for name in ("HOST", "USERNAME", "PASSWORD", "PROJECT_ID", "TIMEZONE", "ETL_HOME"):
        patch.delenv(f"MIXPANEL_{name}", raising=False)
    return here(capsys)
