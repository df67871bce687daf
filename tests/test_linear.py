"""No regular expression that can backtrack is held against text that is not ours, unseen."""

import ast
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "engine"

# A file may import `re` for one of these reasons alone; a new one uses re2, or no regex.
PLAIN = "no two ways to read a text: each is a run of one class, or of a fixed length"
BOUNDED = "the text is cut to a fixed length first"
OURS = "names that are ours: of files, fields and settings"
HAVE_RE = {
    "mixpanel/responses.py": BOUNDED,
    "control/api/listing.py": BOUNDED,
    "dataset/layout.py": OURS,
    "dataset/log_entries.py": OURS,
    "dataset/storage/local.py": PLAIN,
    "control/validation.py": PLAIN,
    "config/file.py": PLAIN,
    "config/value_types.py": PLAIN,
    "cli/console.py": PLAIN,
    "dataset/delta_log.py": OURS,
    "transform/exact_json.py": PLAIN,
    "config/fields.py": OURS,
    "transform/moments.py": PLAIN,
    "mapping/mapping_set.py": PLAIN,
    "mapping/expression/tokens.py": PLAIN,
    "mapping/expression/dates.py": PLAIN,
    "mapping/expression/functions/table.py": OURS,
    "sandbox/where.py": OURS,
    "transform/schema.py": PLAIN,
    "transform/columns.py": PLAIN,
    "transform/fast_path.py": PLAIN,
    "mixpanel/client.py": PLAIN,
    "mapping/evaluate.py": PLAIN,
    "dataset/table.py": PLAIN,
    "transform/second_process.py": OURS,
    "model/window.py": PLAIN,
}


def importers(*modules: str) -> set[str]:
    """The files of the engine that import one of `modules`, anywhere in them."""
    found = set()
    for path in ENGINE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += by_name(node)
            if {name.partition(".")[0] for name in names} & set(modules):
                found.add(path.relative_to(ENGINE).as_posix())
    return found


def by_name(node: ast.AST) -> list[str]:
    """The module that a call like `import_module("re")` or `__import__("re")` imports."""
    if not isinstance(node, ast.Call) or not node.args:
        return []
    called, given = ast.unparse(node.func).rpartition(".")[2], node.args[0]
    known = called in ("import_module", "__import__") and isinstance(given, ast.Constant)
    return [str(given.value)] if known and isinstance(given, ast.Constant) else []


def test_only_known_files_have_regular_expressions_that_can_backtrack() -> None:
    """One who adds `import re` says here why no text of another's can stall it."""
    modules = ("re", "regex", "sre_compile", "fnmatch", "glob")
    assert importers(*modules) - set(HAVE_RE) == set()


def test_no_file_is_excused_that_is_gone() -> None:
    """The list names files that are there."""
    assert [name for name in HAVE_RE if not (ENGINE / name).is_file()] == []


def test_jsonschema_is_used_in_one_place() -> None:
    """Its own keywords backtrack and compare all with all; the referee has others for those."""
    assert importers("jsonschema", "jsonschema_rs", "fastjsonschema") == {"transform/referee.py"}


@pytest.mark.parametrize("text", ["import re", "from re import compile as c", "import re as r"])
def test_the_guard_sees_an_import(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is written like."""
    (tmp_path / "some.py").write_text(f"def f():\n    {text}\n")
    monkeypatch.setitem(globals(), "ENGINE", tmp_path)
    assert importers("re") == {"some.py"}
