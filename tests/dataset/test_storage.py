"""The contract of a `Storage`: each implementation passes each test of the first part.

Another one is added to STORAGES, as a function that opens the dataset in a place of its own.
"""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from engine.dataset.storage.base import Entry, Storage, read_bytes
from engine.dataset.storage.local import LocalStorage
from engine.errors import DatasetError
from tests.support.memory_storage import Bucket, MemoryStorage

Open = Callable[[], Storage]


def local(place: Path) -> Open:
    return partial(LocalStorage, place / "dataset")


def memory(place: Path) -> Open:
    return partial(MemoryStorage, Bucket(), place)


STORAGES = [local, memory]


@pytest.fixture(params=STORAGES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same dataset, each time anew."""
    open_: Open = request.param(tmp_path)
    return open_


@pytest.fixture
def storage(opened: Open) -> Storage:
    return opened()


def made(folder: Path, **files: str) -> Path:
    """A local folder with these files."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def names(storage: Storage, folder: str) -> list[str]:
    return sorted(entry.name for entry in storage.entries(folder))


# Reading and writing -------------------------------------------------------------------------


def test_write_makes_and_replaces_a_file(opened: Open) -> None:
    """A file that was written is there for every other opening, with the folders above it."""
    writer, reader = opened(), opened()
    writer.write("a/b/file.json", "one")
    assert read_bytes(reader, "a/b/file.json") == b"one"
    writer.write("a/b/file.json", "two, é")
    assert read_bytes(reader, "a/b/file.json") == "two, é".encode()
    assert names(reader, "a/b") == ["file.json"]


def test_a_write_that_fails_leaves_the_file_as_it_was(storage: Storage) -> None:
    """Atomic: a file is whole or as it was before."""
    storage.write("a/file.json", "one")
    with pytest.raises(UnicodeEncodeError):
        storage.write("a/file.json", "half of it \ud800")
    assert read_bytes(storage, "a/file.json") == b"one"


def test_a_file_that_is_open_stays_what_it_was(storage: Storage) -> None:
    """A reader gets one version of a file, and never parts of two."""
    storage.write("file", "one")
    with storage.open("file") as file:
        storage.write("file", "other")
        assert file.read() == b"one"


def test_open_gives_random_access(storage: Storage) -> None:
    """A file can be read in parts, from its end, as Arrow reads Parquet."""
    storage.write("file", "0123456789")
    with storage.open("file") as file:
        assert file.size() == 10
        file.seek(6)
        assert file.read() == b"6789"
        file.seek(2)
        assert file.read(3) == b"234"


def test_a_missing_file(storage: Storage) -> None:
    """A missing file: `open` raises FileNotFoundError with its errno; `stat` returns None."""
    with pytest.raises(FileNotFoundError) as caught:
        storage.open("a/file")
    assert caught.value.errno == errno.ENOENT
    assert storage.stat("a/file") is None


def test_stat_tells_a_file_from_another_in_its_place(storage: Storage) -> None:
    """The size in bytes; and the mark stays until the file is replaced, even by an equal one."""
    storage.write("a/file", "é")
    first = storage.stat("a/file")
    assert first
    assert first.size == 2
    assert storage.stat("a/file") == first
    storage.write("a/other", "é")
    other = storage.stat("a/other")
    assert other
    assert other.mark != first.mark
    storage.write("a/file", "e")
    assert storage.stat("a/file") != first


def test_a_folder_is_no_file(storage: Storage) -> None:
    """`stat` finds no file where a folder is."""
    storage.write("a/b/file", "x")
    assert storage.stat("a") is None
    assert storage.stat("a/b") is None


def test_entries_of_folders(storage: Storage) -> None:
    """The names of one level with their kinds, none in a folder that is missing."""
    assert list(storage.entries("")) == []
    for path in ("file", "a/one", "a/two", "a/b/three", "ab/four"):
        storage.write(path, "x")
    assert sorted(storage.entries("")) == [
        Entry("a", "folder"), Entry("ab", "folder"), Entry("file", "file"),
    ]  # fmt: skip
    assert sorted(storage.entries("a")) == [
        Entry("b", "folder"), Entry("one", "file"), Entry("two", "file"),
    ]  # fmt: skip
    assert list(storage.entries("missing")) == []


# Publishing ----------------------------------------------------------------------------------


def test_publish_moves_files_and_folders(storage: Storage) -> None:
    """Published files and folders are at their paths, and no longer on the local disk."""
    data = made(storage.scratch / "B", one="1", two="2")
    rejects = made(data / "batch" / "row_errors", three="3")
    (data / "batch" / "four").write_text("4")
    storage.publish({data / "one": "day/one", data / "two": "other/two", data / "batch": "all/B"})
    assert read_bytes(storage, "day/one") == b"1"
    assert read_bytes(storage, "other/two") == b"2"
    assert read_bytes(storage, "all/B/row_errors/three") == b"3"
    assert read_bytes(storage, "all/B/four") == b"4"
    assert not (data / "one").exists()
    assert not rejects.exists()


def test_publish_twice_is_publish_once(storage: Storage) -> None:
    """Idempotent: a commit that is tried again publishes the same files again."""
    data = made(storage.scratch / "B", one="1")
    for _ in range(2):
        storage.publish({data / "one": "day/one"})
    storage.publish({})
    assert read_bytes(storage, "day/one") == b"1"


def test_publish_of_a_file_that_is_missing(storage: Storage) -> None:
    """Where some files are there and one is not, the commit must not be made."""
    data = made(storage.scratch / "B", one="1")
    with pytest.raises(FileNotFoundError):
        storage.publish({data / "one": "day/one", data / "two": "day/two"})


# Deleting ------------------------------------------------------------------------------------


def test_delete_files_and_folders(storage: Storage) -> None:
    """A path that ends in "/" is a folder with everything below; what is emptied goes as well."""
    for path in ("a/b/one", "a/b/c/two", "d/e/three", "f/four", "f/five", "fo/six"):
        storage.write(path, "x")
    assert storage.delete(["a/b/", "d/e/three", "f/four"]) == []
    assert names(storage, "") == ["f", "fo"]
    assert names(storage, "f") == ["five"]


def test_delete_what_is_missing(storage: Storage) -> None:
    """Idempotent: a crash between two deletions is followed by all of them."""
    storage.write("a/one", "x")
    assert storage.delete(["a/missing", "missing/two", "missing/", "a/one", "a/one", "a/"]) == []
    assert storage.delete([]) == []
    assert names(storage, "") == []


def test_delete_leaves_a_folder_in_the_place_of_a_file(storage: Storage) -> None:
    """A folder in the place of a file is returned, not deleted; the other paths are deleted."""
    storage.write("day/folder.parquet/more", "x")
    storage.write("day/one", "x")
    assert storage.delete(["day/folder.parquet", "day/one"]) == ["day/folder.parquet"]
    assert names(storage, "day") == ["folder.parquet"]


def test_set_aside(storage: Storage) -> None:
    """A file or a folder gets a free name that ends in .damaged, beside itself or another path."""
    for path in ("log/1.json", "log/2.json", "junk/folder/file"):
        storage.write(path, path)
    assert storage.set_aside("log/1.json") == "1.json.damaged"
    storage.write("log/1.json", "again")
    assert storage.set_aside("log/1.json") == "1.json.2.damaged"
    assert storage.set_aside("log/2.json", "other") == "other.damaged"
    assert storage.set_aside("junk/folder") == "folder.damaged"
    assert names(storage, "log") == ["1.json.2.damaged", "1.json.damaged"]
    assert read_bytes(storage, "log/1.json.2.damaged") == b"again"
    assert read_bytes(storage, "other.damaged") == b"log/2.json"
    assert read_bytes(storage, "junk/folder.damaged/file") == b"junk/folder/file"
    with pytest.raises(FileNotFoundError):
        storage.set_aside("log/1.json")


def test_sync_skips_what_is_missing(storage: Storage) -> None:
    """A commit without a checkpoint has none to force to the disk."""
    storage.write("log/1.json", "x")
    storage.sync(["log/1.json", "log/1.checkpoint.parquet"])
    assert read_bytes(storage, "log/1.json") == b"x"


# The lock ------------------------------------------------------------------------------------


def test_the_lock_keeps_others_out(opened: Open) -> None:
    """A second writer is refused while the first one has the lock, and not afterwards."""
    first, second = opened(), opened()
    with first.lock(), pytest.raises(DatasetError, match="in use"), second.lock():
        pass
    with second.lock():
        pass


def test_the_lock_is_free_after_an_error(opened: Open) -> None:
    """An error in the body frees the lock as well."""
    with pytest.raises(KeyError), opened().lock():
        raise KeyError
    with opened().lock():
        pass


# The local disk alone ------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "dataset")


def test_links_are_other_entries(disk: LocalStorage, tmp_path: Path) -> None:
    """A link to a folder is not listed as a folder: what is below it is another's."""
    made(tmp_path / "outside", file="x")
    disk.write("a/file", "x")
    (disk.root / "a" / "link").symlink_to(tmp_path / "outside")
    assert sorted(disk.entries("a")) == [Entry("file", "file"), Entry("link", "other")]
    disk.delete(["a/link"])
    assert (tmp_path / "outside" / "file").exists()


def test_delete_goes_on_after_an_error(disk: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other paths are tried, and the error is raised after them."""
    for path in ("a/one", "a/two"):
        disk.write(path, "x")
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name == "one":
            raise PermissionError(errno.EACCES, "no", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(PermissionError):
        disk.delete(["a/one", "a/two"])
    assert names(disk, "a") == ["one"]


def test_what_is_durable_at_return(disk: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: each verb has forced the file, or the folders that changed, to the disk at return."""
    synced, fsync = set[int](), os.fsync

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def is_synced(*paths: str) -> bool:
        found = {(disk.root / path).stat().st_ino for path in paths} <= synced
        synced.clear()
        return found

    monkeypatch.setattr(os, "fsync", noted)
    disk.write("a/b/file", "x")
    assert is_synced("a/b/file", "a/b", "a", "")
    batch = made(disk.scratch / "B" / "batch", rejects="x")
    disk.publish({batch: "all/B"})
    assert is_synced("all/B/rejects", "all/B", "all", "")
    disk.delete(["a/b/file"])
    assert is_synced("")
    disk.write("log/1.json", "x")
    synced.clear()
    disk.sync(["log/1.json"])
    assert is_synced("log/1.json", "log")
