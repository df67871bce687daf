"""Writing so that a crash or a power cut finds a file whole or not at all."""

import os
from pathlib import Path


def write_synced(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, whatever the moment of a crash."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Force a file, or a directory's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
