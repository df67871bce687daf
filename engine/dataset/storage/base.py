"""What the dataset needs of the place where its bytes are.

Paths are those of `layout`: relative to the root, with "/" between their parts. Errors are OSError
with an errno, or DatasetError. The caller of `write`, `publish`, `delete`, `set_aside` and `sync`
holds the lock; others may read at any time.

An object store can do all of this: no verb appends to a file or lists the whole dataset, and only
`set_aside` renames, for which a store copies and deletes. deltalake writes the Delta log by itself;
see `sync`.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol


class Entry(NamedTuple):
    """A name in a folder. A link, or what is neither file nor folder, is "other"."""

    name: str
    kind: Literal["file", "folder", "other"]


class Stat(NamedTuple):
    """The size of a file in bytes, and a value that another file in its place does not have."""

    size: int
    mark: tuple[Any, ...]


class Storage(Protocol):
    """The files of one dataset."""

    @property
    def root(self) -> Path:
        """The root of the dataset, as deltalake opens it and messages name it."""

    @property
    def scratch(self) -> Path:
        """A folder on a local disk in which the files of a batch are made before `publish`."""

    def open(self, path: str) -> Any:
        """Open a file for random access, as Arrow takes it. FileNotFoundError if it is missing."""

    def stat(self, path: str) -> Stat | None:
        """Return size and mark of a file; None if it is missing or a folder is in its place."""

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yield the entries of a folder ("" is the root), in no order; nothing if it is missing."""

    def write(self, path: str, text: str) -> None:
        """Write a small file, and replace one of that name.

        Atomic: at every moment the file is whole or as it was before. Durable at return.
        Idempotent.
        """

    def publish(self, files: Mapping[Path, str]) -> None:
        """Move finished local files, or folders of such, to their paths.

        Durable at return, if the writer of each single file has forced it to the disk; folders are
        forced here. Not atomic: no reader knows the paths before the commit. Idempotent: where all
        of the local files are gone, an earlier call has published them.
        """

    def delete(self, paths: Iterable[str]) -> list[str]:
        """Delete files, and whole folders, whose paths end in "/"; return what was left.

        Folders that became empty go as well. Durable at return. Idempotent: what is missing counts
        as deleted. A folder in the place of a file is left. After an error the other paths are
        tried before it is raised; one inside a folder leaves the rest of that folder there.
        """

    def set_aside(self, path: str, beside: str | None = None) -> str:
        """Give a file, folder or link a new name that ends in `.damaged`, and return that name.

        `beside`: the path that it is named after, if not its own. FileNotFoundError if it is
        missing. Durable after `sync` of the path.
        """

    def sync(self, paths: Iterable[str]) -> None:
        """Force files that deltalake has written, and their folders, to the disk, in this order.

        What is missing is skipped. Durable at return; a store has nothing to do. Idempotent.
        """

    def lock(self) -> AbstractContextManager[None]:
        """Keep every other writer out while the context lasts, also if this process is killed.

        DatasetError, which names the holder, if another process has the lock.
        """


def read_bytes(storage: Storage, path: str) -> bytes:
    """Return all of a file. FileNotFoundError if it is missing."""
    with storage.open(path) as file:
        data: bytes = file.read()
        return data
