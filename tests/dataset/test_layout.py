"""`layout` alone names what is below the root of a dataset."""

import ast
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from engine.dataset import layout

ENGINE = Path(__file__).parents[2] / "engine"
DAY = date(2024, 1, 2)
# What only the layout may spell: whole names in a path, and parts of names.
NAMES = ["_delta_log", "_staging", "_batches", "_superseded", "row_errors", "input_files", "spool"]
PARTS = [
    "event_date=", "row_error_samples", "fileMetaData", "intent.json", "batch.json",
    "parsing_errors", "conversion_errors", ".damaged",
]  # fmt: skip
# Records that version 0.1 wrote hold the path of a batch's inputs, as it was called then.
ELSEWHERE = {"catalog/version_0_1.py": ["input_files"]}


def literals(path: Path) -> Iterator[str]:
    """The texts in a module, except for docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def spelled(text: str) -> list[str]:
    """Return those of NAMES and PARTS that `text` contains."""
    names = set(text.replace("'", "/").split("/"))
    return [name for name in NAMES if name in names] + [part for part in PARTS if part in text]


def test_no_other_module_names_a_path_below_the_root() -> None:
    """A path changes in one place. The sandbox is left out: it stands in for other programs."""
    found = [
        (name, text)
        for path in ENGINE.rglob("*.py")
        if (name := path.relative_to(ENGINE).as_posix()) != "dataset/layout.py"
        and not name.startswith("sandbox/")
        for text in literals(path)
        if set(spelled(text)) - set(ELSEWHERE.get(name, []))
    ]
    assert found == []
    assert spelled("table/_staging/B") == ["_staging"]  # so that the test can fail


@pytest.mark.parametrize(
    ("path", "own"),
    [
        (layout.data_file(DAY, "01BX5ZZKBKACTAV9WEVGEMMVRZ", 0), True),
        (layout.data_file(DAY, "B", 12), True),
        ("event_date=2024-01-02/part-00000-0f4e-c000.zstd.parquet", False),
        ("event_date=2024-01-02/B-0.parquet.damaged", False),
        ("event_date=2024-01-02/more/B-0.parquet", False),
        ("event_date=2024-01-02/-0.parquet", False),
        ("event_date=2024-01-02/B-\u0661.parquet", False),
        ("other/B-0.parquet", False),
        ("B-0.parquet", False),
    ],
)
def test_data_files_of_this_program(path: str, own: bool) -> None:
    """This program's data files are recognised by their names."""
    assert layout.is_own_data_file(path) is own
    if own:
        number = int(path.removesuffix(".parquet").rpartition("-")[2])
        assert layout.data_file(DAY, layout.batch_of(path), number) == path


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../other", "a/../../b", "file:///x", "s3:/x", "a/.."]
)
def test_paths_that_lead_out_of_the_root(path: str) -> None:
    """Paths outside the root belong to another table, as in a shallow clone."""
    assert not layout.is_inside(path)
    assert layout.is_inside("event_date=2024-01-02/B..0.parquet")


def test_names_are_read_as_they_are_made() -> None:
    """`parse_superseded` returns the arguments of `superseded`."""
    path = layout.superseded(17, "B-1")
    assert layout.parse_superseded(path.removeprefix(f"{layout.SUPERSEDED}/")) == (17, "B-1")
    assert layout.parse_superseded("x-B.json") is None
    assert layout.is_input_note(layout.input_note(3))
    assert not layout.is_input_note("fileMetaData.json")
    assert layout.is_day_folder(layout.day_folder(DAY))
