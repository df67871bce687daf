"""Files that a crash or a power cut leaves whole or not at all; files that one process holds;
where they are.
"""

import fcntl
import os
import tempfile
from contextlib import suppress
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


def keep(path: Path, text: str) -> str:
    """What a file of its owner's alone holds: `text`, unless it was there already.

    Of two processes that make it at once, both get what one of them wrote; never a part of it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8") as file:
            file.write(text)  # its mode is 600 from the first moment on
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(file.name, path)
        sync(path.parent)
    return path.read_text("utf-8")


def sync(path: Path) -> None:
    """Force a file, or a directory's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_aside(path: Path, beside: Path | None = None) -> str:
    """Give what is at `path` a name that nothing reads, as if it were `beside`; that name."""
    wanted = beside or path
    name, number = f"{wanted.name}.damaged", 1
    while os.path.lexists(wanted.with_name(name)):
        number += 1
        name = f"{wanted.name}.{number}.damaged"
    path.rename(wanted.with_name(name))
    return name


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


def canonical(uri: str) -> str:
    """The one name of the table that `uri` names; two that share a table have the same one (P4)."""
    return os.path.realpath(local_path(uri))


def holder(lock: Path) -> int | None:
    """The process that holds a lock that `take` took; None if none does."""
    try:
        with lock.open(encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    return None
