"""Lazy imports of the commands: a module of the engine loads at its first use, others at once."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]


def run(script: str) -> str:
    """Run `script` in a new interpreter; return what it prints."""
    command = [sys.executable, "-c", dedent(script)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.strip()


def test_a_module_loads_at_its_first_use() -> None:
    """Its own imports are not lazy, and an import of it elsewhere is the same module."""
    assert (
        run(
            """
        import sys
        from engine.cli.lazy_imports import lazy_imports
        with lazy_imports():
            from engine.catalog import database
        before = "sqlite3" in sys.modules
        name = database.NAME
        from engine.catalog.database import Catalog
        print(before, name, "sqlite3" in sys.modules, database.Catalog is Catalog)
        """
        )
        == "False catalog.sqlite3 True True"
    )


def test_other_packages_and_later_imports_are_not_lazy() -> None:
    """NumPy and others refuse to be loaded by parts; after the block imports are as usual."""
    assert (
        run(
            """
        import sys
        from engine.cli.lazy_imports import lazy_imports
        with lazy_imports():
            import colorsys
        first = type(sys.modules["colorsys"]).__name__
        from engine.model import clock
        print(first, type(sys.modules["engine.model.clock"]).__name__)
        """
        )
        == "module module"
    )


def test_a_module_that_does_not_exist_is_an_error_at_once() -> None:
    """A typing mistake shows when the program starts, not when its command is called."""
    assert (
        run(
            """
        from engine.cli.lazy_imports import lazy_imports
        try:
            with lazy_imports():
                from engine.sync import no_such_module
        except ImportError as error:
            print(type(error).__name__)
        """
        )
        == "ImportError"
    )
