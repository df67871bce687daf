"""Files that a crash or a power cut leaves whole or not at all; files that one process holds;
where they are.
"""

import errno
import fcntl
import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TextIO
from urllib.parse import unquote, urlsplit

from engine.errors import InputError

# What a file system answers to a call that it does not have, at all or for such a file.
LACKING = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)

NO_LINKS = (
    "its file system has no hard links, by which a Delta commit is made. Use a folder on another "
    "file system"
)


def write_synced(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, whatever the moment of a crash."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        sync_written(file)
    partial.rename(path)
    sync(path.parent)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are missing, so that a power cut leaves them there."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    sync(path.parent)


def keep(path: Path, text: str) -> str:
    """What a file of its owner's alone holds: `text`, unless it was there already.

    Of two processes that make it at once, both get what one of them wrote; never a part of it.
    """
    make_folder(path.parent, 0o700)
    if not path.exists():
        handle, name = tempfile.mkstemp(dir=path.parent)  # its mode is 600 from the first moment on
        try:
            with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123  # it is open
                file.write(text)
                sync_written(file)
            _name_once(Path(name), path)
        finally:
            Path(name).unlink(missing_ok=True)
        sync(path.parent)
    return path.read_text("utf-8")


def _name_once(made: Path, path: Path) -> None:
    """Give a file its name, unless there is one of that name already."""
    try:
        os.link(made, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in LACKING:
            raise
        _rename_once(made, path)


def _rename_once(made: Path, path: Path) -> None:
    """The same on a file system without hard links: one process at a time looks and renames."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        _lock(fcntl.flock, folder, fcntl.LOCK_EX, path.parent)
        if not path.exists():
            made.rename(path)
    finally:
        os.close(folder)


def sync(path: Path) -> None:
    """Force a file, or a directory's entries, to the disk.

    Where a directory cannot be synced, as on SMB, some FUSE file systems and in one that this user
    may not list, the file system looks after its entries in its own way: there is nothing to do.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():
            return
        raise
    try:
        _fsync(handle)
    except OSError as error:
        if error.errno not in (*LACKING, errno.EBADF) or not path.is_dir():
            raise
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


def sync_written(file: IO[Any]) -> None:
    """Force what was written to an open file to the disk."""
    file.flush()
    _fsync(file.fileno())


def _fsync(handle: int) -> None:
    """An OSError that says it where the file system has no such thing: P2 could not be kept."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in LACKING:
            raise
        raise OSError(
            errno.ENOTSUP,
            f"the file system cannot force a file to the disk (fsync: {error.strerror}). "
            "Use a folder on another one",
        ) from error


def sync_tree(folder: Path) -> None:
    """Force a folder to the disk, with all that is below it."""
    for where, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(where, name))
        sync(Path(where))


def can_share_memory(folder: Path) -> bool:
    """Whether processes can share memory by a file there; on network file systems many cannot.

    OSError where they cannot lock a file either.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        _lock(fcntl.lockf, file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, folder)
        file.truncate(mmap.PAGESIZE)
        try:
            mmap.mmap(file.fileno(), mmap.PAGESIZE).close()
        except OSError:
            return False
    return True


def try_out(folder: Path) -> None:
    """Try there, with a file that is gone afterwards, what a table needs; OSError if it fails."""
    with tempfile.NamedTemporaryFile("w", dir=folder) as file:
        sync_written(file)
        _lock(fcntl.flock, file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, folder)
        second = Path(f"{file.name}.link")
        try:
            os.link(file.name, second)
        except OSError as error:
            if error.errno not in LACKING:
                raise
            raise OSError(errno.ENOTSUP, NO_LINKS) from error
        second.unlink()


def take(lock: TextIO) -> str:
    """Lock an open file, which names this process from then on; else who holds it, "?" if unknown.

    The kernel lets go of it when the process ends, however it ends.
    """
    try:
        _lock(fcntl.flock, lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, Path(lock.name).parent)
    except BlockingIOError:
        lock.seek(0)
        return lock.read().strip() or "?"
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return ""


def _lock(call: Callable[[int, int], None], handle: int, how: int, folder: Path) -> None:
    """Lock a file by `call`; OSError in words where the file system of `folder` has no locks.

    To go on without them would let two processes write at once.
    """
    try:
        call(handle, how)
    except OSError as error:
        if error.errno not in (*LACKING, errno.ENOLCK):
            raise
        raise OSError(
            errno.ENOLCK,
            f"the file system of {folder} cannot lock files ({call.__name__}: {error.strerror}). "
            "Mount it with locks, or use a folder on another one",
        ) from error


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
                _lock(fcntl.flock, file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB, lock.parent)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ENOLCK:  # where nobody can lock, nobody does
            raise
    return None
