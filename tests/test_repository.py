"""Guards of the repository: what it promises, shows and must never hold."""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from engine.sandbox import Sandbox, Spec
from tests.support.commands import environment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SOURCES = sorted((ROOT / "engine").rglob("*.py"))

# Written in two parts, so that this file does not hold them.
FORBIDDEN = [
    "/wo" + "rk/", "/ro" + "ot/", "../sha" + "red", "py" + "pi.org", "python" + "hosted",
    "extra-" + "index", "npm" + "js", "clau" + "de", "anthro" + "pic", "open" + "ai",
    "chat" + "gpt", "sub" + "agent",
]  # fmt: skip


def tracked() -> list[Path]:
    """What belongs to the repository; outside of one there is nothing to look at."""
    found = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip("this is no git repository")
    return [path for name in found.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_nothing_of_a_machine() -> None:
    """No file tells of the machine it was written on, of a registry, or of who else was there."""
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
    """No table, catalog, cache or build is part of the repository."""
    made = re.compile(r"\.(parquet|sqlite3|whl|pyc|gz)$|(^|/)(dist|build|demo-data|\.venv)/")
    names = [path.relative_to(ROOT).as_posix() for path in tracked()]
    assert [name for name in names if made.search(name)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_says_what_it_does(path: Path) -> None:
    """A file opens with a docstring: a newcomer reads that first."""
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
    """Others rely on these: one more or one less is a decision, not an accident."""
    loaded = importlib.import_module(module)
    found = {
        name
        for name, value in vars(loaded).items()
        if not isinstance(value, ModuleType) and (name == "__version__" or name[0] != "_")
    }
    assert found == names


def test_the_version() -> None:
    """The program and its package tell the same version."""
    from engine import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert project["scripts"] == {"mixpanel-etl": "engine.__main__:main"}


@pytest.mark.parametrize(("extra", "folder"), [("test", "tests"), ("bench", "benchmarks")])
def test_the_extras(extra: str, folder: str) -> None:
    """`pip install '.[test]'` and `'.[bench]'` bring all that the tests, the benchmarks import."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"][extra]]
    packages = [re.split(r"[^\w-]", each)[0].removeprefix("python-") for each in needed]
    brought = {name.replace("-", "_") for name in packages}
    ours = {"engine", "tests", "benchmarks"}
    for path in (ROOT / folder).rglob("*.py"):
        if "peers" in path.parts or "cache" in path.parts:  # they run in places of their own
            continue
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        names = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
        names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        tops = {name.partition(".")[0] for name in names}
        assert tops - brought - ours <= sys.stdlib_module_names, path
    assert f"'.[{extra}]'" in (ROOT / "Makefile").read_text("utf-8")


# The README ------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_its_files_exist() -> None:
    """Every file of the repository that the README names is there."""
    named = re.findall(r"`((?:engine|tests|docs|mappings|schemas|benchmarks)/[\w./-]*)`", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_its_options_exist() -> None:
    """Every option that the README names is one of some command."""
    files = ("main.py", "flows.py", "rejects.py", "console.py")
    source = "\n".join((ROOT / "engine" / "cli" / name).read_text("utf-8") for name in files)
    flags = set(re.findall(r'"(--[a-z-]+)"', source))
    named = {f"--{name.replace('_', '-')}" for name in re.findall(r"^    (\w+): ", source, re.M)}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= flags | named


def test_its_targets_exist() -> None:
    """Every `make …` of the README is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(blocks("sh"))))
    named |= set(re.findall(r"`make ([a-z]+)`", README))
    assert {"demo", "test"} <= named <= targets


SHIMS = {
    "mixpanel-etl": """
        from engine.cli.main import main

        if sys.argv[1] in ("daemon", "sandbox"):  # they run until they are stopped
            sys.argv[2:] = ["--help"]
        main()
        """,
    "duckdb": """
        import duckdb

        assert sys.argv[1] == "-c"
        duckdb.sql(sys.argv[2]).show()
        """,
    "python": "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
    "make": "",
}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs that the README's commands call."""
    folder = tmp_path_factory.mktemp("bin")
    for name, script in SHIMS.items():
        text = f"#!{sys.executable}\nimport os, sys\n{dedent(script)}\n"
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(events_per_day=60, reject_percent=2)) as running:
        yield running


@pytest.mark.skipif(sys.platform == "win32", reason="the README's blocks are for a POSIX shell")
def test_its_commands_run(shell: Path, sandbox: Sandbox, tmp_path: Path) -> None:
    """Every command of the README, in its order, against a stand-in for Mixpanel; then its code."""
    known = {"mixpanel-etl", "duckdb", "python", "make"}
    variables = environment(sandbox) | {"PATH": f"{shell}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    for number, block in enumerate(blocks("toml")):
        host = re.sub(r'host = "[^"]*"', f'host = "{sandbox.url}"', block)
        (tmp_path / ("flows.toml" if number == 0 else f"flows{number}.toml")).write_text(host)
    ran = []
    for block in blocks("sh"):
        commands = [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]
        assert {shlex.split(line, comments=True)[0] for line in commands} <= known, block
        done = subprocess.run(
            ["/bin/bash", "-euc", block],
            cwd=tmp_path, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        ran += commands
    assert any("backfill" in line for line in ran)
    assert (tmp_path / "data" / "events").is_dir()
    for block in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", block],
            cwd=tmp_path, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stderr}"


def test_its_configuration(sandbox: Sandbox, tmp_path: Path) -> None:
    """A configuration that the README shows is one, with what it shows as comments too."""
    from engine.config import file

    secrets = {"ETL_TOKEN": "sixteen-and-more-letters", "ETL_KEY": "…"}
    for block in blocks("toml"):
        options = re.findall(r"^# (\w+ = .*)$", block, re.MULTILINE)
        assert options
        more = "\n".join(each.strip() for line in options for each in line.split(";"))
        for text in (block, block + more.replace("…", "true")):
            path = tmp_path / "flows.toml"
            path.write_text(text, "utf-8")
            found = file.load(path, environment(sandbox) | secrets)
            assert found.flows or found.api
