"""Import a module when a command first uses it: no `--help` waits for Arrow, SQLite or httpx."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader


class _LazyFinder(PathFinder):
    """Finds modules like PathFinder, and gives those of the engine a lazy loader."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        """Find a module; its code runs at the first access to one of its attributes."""
        spec = PathFinder.find_spec(fullname, path)
        # Other packages may not stand it: NumPy refuses to load twice.
        if spec is not None and spec.loader is not None and fullname.startswith("engine."):
            spec.loader = LazyLoader(spec.loader)
        return spec


@contextmanager
def lazy_imports() -> Iterator[None]:
    """Make the imports of the engine's modules in a `with` block lazy.

    Import modules there (`from engine.sync import backfill`), not names of a module: a name is an
    attribute, and loads its module at once.
    """
    sys.meta_path.insert(0, _LazyFinder)
    try:
        yield
    finally:
        sys.meta_path.remove(_LazyFinder)
