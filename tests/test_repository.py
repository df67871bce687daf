"""Guard the repository: its public names and its packages, and what no file may contain."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "engine").rglob("*.py"))

# Written in two parts, so that this file does not hold them.
FORBIDDEN = [
    "/wo" + "rk/", "/ro" + "ot/", "../sha" + "red", "py" + "pi.org", "python" + "hosted",
    "extra-" + "index", "npm" + "js", "clau" + "de", "anthro" + "pic", "open" + "ai",
    "chat" + "gpt", "sub" + "agent",
]  # fmt: skip


def tracked() -> list[Path]:
    """Return the files of the repository; skip the test outside of a repository."""
    found = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip("this is not a git repository")
    return [path for name in found.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_nothing_of_a_machine() -> None:
    """No file names the machine on which it was written, a registry or a tool."""
    places = {str(ROOT), *(home for home in [str(Path.home())] if len(home) > 1)}
    words = [*FORBIDDEN, *(f"{place}/" for place in places)]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in tracked()
        for word in words
        if word.encode().lower() in path.read_bytes().lower()
    ]
    assert found == []


def test_nothing_that_was_made() -> None:
    """No table, catalog, cache or build is in the repository."""
    made = re.compile(r"\.(parquet|sqlite3|whl|pyc|gz)$|(^|/)(dist|build|demo-data|\.venv)/")
    names = [path.relative_to(ROOT).as_posix() for path in tracked()]
    assert [name for name in names if made.search(name)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_says_what_it_does(path: Path) -> None:
    """Each file starts with a docstring."""
    assert len(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "") > 20


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("engine", {"__version__"}),
        (
            "engine.sandbox",
            {
                "PASSWORD", "PROJECT_ID", "USERNAME", "Project", "Sandbox", "Spec", "Truth",
                "day_lines", "serve", "truth",
            },
        ),
    ],
)  # fmt: skip
def test_the_public_names(module: str, names: set[str]) -> None:
    """The public names change on purpose only, since others rely on them."""
    loaded = importlib.import_module(module)
    found = {
        name
        for name, value in vars(loaded).items()
        if not isinstance(value, ModuleType) and (name == "__version__" or name[0] != "_")
    }
    assert found == names


def test_the_version() -> None:
    """The program and its package have the same version."""
    from engine import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert project["scripts"] == {"mixpanel-etl": "engine.__main__:main"}


@pytest.mark.parametrize(("extra", "folder"), [("test", "tests"), ("bench", "benchmarks")])
def test_the_extras(extra: str, folder: str) -> None:
    """`pip install '.[test]'` and `'.[bench]'` install what the tests and the benchmarks import."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"][extra]]
    packages = [re.split(r"[^\w-]", each)[0].removeprefix("python-") for each in needed]
    brought = {name.replace("-", "_") for name in packages}
    ours = {"engine", "tests", "benchmarks"}
    for path in (ROOT / folder).rglob("*.py"):
        if "peers" in path.parts or "cache" in path.parts:  # peers run in other environments
            continue
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        names = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
        names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        tops = {name.partition(".")[0] for name in names}
        assert tops - brought - ours <= sys.stdlib_module_names, path
    assert f"'.[{extra}]'" in (ROOT / "Makefile").read_text("utf-8")
