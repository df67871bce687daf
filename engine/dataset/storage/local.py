"""The local disk: the one `Storage` so far, and the file operations that it is made of.

The home of the program, with its catalog and secrets, uses the functions as well. What they write
is there whole or not at all after a crash or a power cut.
"""

import errno
import fcntl
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, TextIO
from urllib.parse import unquote, urlsplit

from engine.dataset import layout
from engine.dataset.storage.base import Entry, Stat
from engine.errors import DatasetError, InputError, disk_error

# What a file system answers to a call that it does not support, at all or for such a file.
LACKING = (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)

NO_LINKS = (
    "its file system has no hard links, by which a Delta commit is made. Use a folder on another "
    "file system"
)
UNREACHABLE = re.compile(r"[\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")  # in a path, for deltalake


class LocalStorage:
    """A dataset in a folder of this machine; each method does what `Storage` says of it."""

    def __init__(self, root: Path) -> None:
        """Raise InputError if the root, or one of its own folders, cannot be a folder."""
        self.root = Path(os.path.realpath(root))  # one table has one name, wherever we are
        self.scratch = self.root / layout.STAGING  # on its file system, so that publish renames
        if odd := UNREACHABLE.search(str(self.root)):
            raise InputError(
                f"A Delta table cannot be kept in {str(self.root)!r}: Delta readers take its "
                f"{odd[0]!r} for something else. Give another directory for the dataset."
            )
        standing = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not standing.is_dir():
            raise InputError(f"{standing} is a file. Give a directory for the dataset.")
        for name in layout.OWN_FOLDERS:
            folder = self.root / name
            if os.path.lexists(folder) and not folder.is_dir():
                raise InputError(
                    f"{folder} is a file, and the dataset needs a folder of that name. Move the "
                    "file away, or give another directory for the dataset."
                )

    def open(self, path: str) -> Any:
        """Open a file as Arrow's random access file."""
        import pyarrow as pa  # 100 ms, which the home does without

        return pa.OSFile(str(self.root / path))

    def stat(self, path: str) -> Stat | None:
        """Follow links: a folder of data files may be on another disk."""
        try:
            found = os.stat(f"{self.root}/{path}")  # noqa: PTH116  # a Path takes as long again
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not S_ISREG(found.st_mode):
            return None
        return Stat(found.st_size, (found.st_ino, found.st_mtime_ns, found.st_size))

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yield the entries one after the other: a folder may hold thousands."""
        with suppress(FileNotFoundError), os.scandir(self.root / folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    yield Entry(entry.name, "folder")
                else:
                    is_file = entry.is_file(follow_symlinks=False)
                    yield Entry(entry.name, "file" if is_file else "other")

    def write(self, path: str, text: str) -> None:
        """Write a temporary file beside it, and rename that."""
        make_folder((self.root / path).parent)
        write_synced(self.root / path, text)

    def publish(self, files: Mapping[Path, str]) -> None:
        """Rename the files and folders, and force the folders that changed to the disk."""
        moves = {source: self.root / path for source, path in files.items()}
        if not any(source.exists() for source in moves):
            return
        for source in filter(Path.is_dir, moves):
            sync_tree(source)
        for source, target in moves.items():
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
        for parent in dict.fromkeys(target.parent for target in moves.values()):
            sync(parent)
        sync(self.root)  # the entries of folders that are new

    def delete(self, paths: Iterable[str]) -> list[str]:
        """Unlink the files, remove the folders, and force the folders that changed to the disk."""
        left, failures = list[str](), list[OSError]()
        changed = dict[Path, None]()
        for path in paths:
            place = self.root / path
            changed[place.parent] = None
            try:
                if path.endswith("/"):
                    shutil.rmtree(place, ignore_errors=True)
                elif not _unlink(place):
                    left.append(path)
            except OSError as error:
                failures.append(error)
        for folder in [*changed]:
            while folder != self.root and folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent
                changed[folder] = None
        for folder in filter(Path.is_dir, changed):
            sync(folder)
        if failures:
            raise failures[0]
        return left

    def set_aside(self, path: str, beside: str | None = None) -> str:
        """Rename it to the first such name that is free."""
        wanted = self.root / (beside or path)
        name, number = f"{wanted.name}{layout.DAMAGED}", 1
        while os.path.lexists(wanted.with_name(name)):
            number += 1
            name = f"{wanted.name}.{number}{layout.DAMAGED}"
        (self.root / path).rename(wanted.with_name(name))
        return name

    def sync(self, paths: Iterable[str]) -> None:
        """Force each file, and then each of their folders, to the disk."""
        places = [self.root / path for path in paths]
        for place in places:
            with suppress(FileNotFoundError):
                sync(place)
        for folder in dict.fromkeys(place.parent for place in places):
            sync(folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold an flock, which the kernel frees when the process ends."""
        with disk_error(f"write in {self.root}"):
            make_folder(self.scratch)
            lock = (self.root / layout.LOCK).open("a+", encoding="ascii")
        with lock:
            with disk_error(f"write in {self.root}"):
                holder = lock_file(lock)
            if holder:
                raise DatasetError(
                    f"The dataset {self.root} is in use by process {holder}. "
                    "Wait until it is done, or stop it."
                )
            yield


def _unlink(place: Path) -> bool:
    """Delete a file and return True; False if a folder is in its place."""
    try:
        place.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (IsADirectoryError, PermissionError):  # the latter on macOS
        if place.is_symlink() or not place.is_dir():
            raise
        return False
    return True


def write_synced(path: Path, text: str) -> None:
    """Write a file so that a crash at any moment leaves all of it, or what was there before."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        sync_written(file)
    partial.rename(path)
    sync(path.parent)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are missing, and force them to the disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    sync(path.parent)


def write_once(path: Path, text: str) -> str:
    """Write `text` to a file unless there is one, and return what the file holds.

    Only the owner can read it. Two processes at once both get what one of them has written.
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
    """Give the file `made` the name `path`, unless there is a file of that name."""
    try:
        os.link(made, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in LACKING:
            raise
        _rename_once(made, path)


def _rename_once(made: Path, path: Path) -> None:
    """Do as `_name_once` without hard links: one process at a time checks and renames."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        _lock(fcntl.flock, folder, fcntl.LOCK_EX, path.parent)
        if not path.exists():
            made.rename(path)
    finally:
        os.close(folder)


def sync(path: Path) -> None:
    """Force a file, or the entries of a folder, to the disk.

    A folder that cannot be synced, as on SMB and FUSE, or not be listed, is skipped.
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


def sync_written(file: IO[Any]) -> None:
    """Force what was written to an open file to the disk."""
    file.flush()
    _fsync(file.fileno())


def _fsync(handle: int) -> None:
    """Sync a file; OSError in a sentence where the file system cannot: P2 would not hold."""
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
    """Force a folder, with everything below it, to the disk."""
    for where, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(where, name))
        sync(Path(where))


def can_share_memory(folder: Path) -> bool:
    """Whether processes can share memory through a file in `folder`; OSError without locks."""
    with tempfile.TemporaryFile(dir=folder) as file:
        _lock(fcntl.lockf, file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, folder)
        file.truncate(mmap.PAGESIZE)
        try:
            mmap.mmap(file.fileno(), mmap.PAGESIZE).close()
        except OSError:
            return False
    return True


def check_writable(folder: Path) -> None:
    """Raise OSError unless a table can be written in `folder`; leave nothing there."""
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


def lock_file(lock: TextIO) -> str:
    """Lock an open file until this process ends, write its id to it, and return "".

    If another process has the lock, return the id of that one, "?" if unknown.
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
    """Lock a file by `call`; OSError in a sentence where the file system has no locks."""
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
    """Return the directory that a path or a `file://` URI names; InputError for other URIs."""
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
    """Return the real path of `uri`, which is equal for all names of the same table (P4)."""
    return os.path.realpath(local_path(uri))


def holder(lock: Path) -> int | None:
    """Return the process that has locked a file with `lock_file`; None if there is no such."""
    try:
        with lock.open(encoding="ascii") as file:
            try:
                _lock(fcntl.flock, file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB, lock.parent)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ENOLCK:  # the file system has no locks
            raise
    return None
