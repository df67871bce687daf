"""Files that a crash or a power cut leaves whole or not at all; files that one process holds;
where they are.
"""

import fcntl
import os
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote, urlsplit

from engine.errors import InputError


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


def take(lock: TextIO) -> str:
    """Lock an open file, which names this process from then on; else who holds it, "?" if unknown.

    The kernel lets go of it when the process ends, however it ends.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        return lock.read().strip() or "?"
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return ""


def local_path(uri: str) -> Path:
    """The directory that `uri` names: a path or a `file://` URI; other places are refused."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise InputError(
            f"The dataset {uri} names another machine, {parts.netloc}. "
            "For a path on this one write file:///… or the path alone."
        )
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in uri:
        raise InputError(
            f"The dataset {parts.scheme}://… is not on a local disk. Give a path, or a file:// "
            f"URI; {parts.scheme}:// is not supported yet."
        )
    return Path(uri).expanduser() if uri.startswith("~/") else Path(uri)
