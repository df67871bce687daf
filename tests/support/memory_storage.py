"""A `Storage` in memory, which behaves like an object store: keys alone, no folders, no links."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.dataset.layout import DAMAGED
from engine.dataset.storage.base import Entry, Stat
from engine.errors import DatasetError


@dataclass
class Bucket:
    """The files and the lock that all openings of one dataset share."""

    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # path -> bytes, e-tag
    locked: bool = False
    tags: Iterator[int] = field(default_factory=count)


class MemoryStorage:
    """One opening of the dataset in a bucket."""

    def __init__(self, bucket: Bucket, scratch: Path) -> None:
        self.root, self.scratch = Path("memory"), scratch
        self._bucket = bucket

    def _put(self, path: str, data: bytes) -> None:
        self._bucket.objects[path] = data, next(self._bucket.tags)

    def _below(self, folder: str) -> list[str]:
        prefix = folder and f"{folder.rstrip('/')}/"
        return [path for path in self._bucket.objects if path.startswith(prefix)]

    def open(self, path: str) -> Any:
        if path not in self._bucket.objects:
            raise FileNotFoundError(2, "No such object", path)
        return pa.BufferReader(self._bucket.objects[path][0])

    def stat(self, path: str) -> Stat | None:
        if path not in self._bucket.objects:
            return None
        data, tag = self._bucket.objects[path]
        return Stat(len(data), (tag,))

    def entries(self, folder: str) -> Iterator[Entry]:
        start = len(folder) + 1 if folder else 0
        below = (path[start:].partition("/") for path in self._below(folder))
        yield from {Entry(name, "folder" if slash else "file") for name, slash, _ in below}

    def write(self, path: str, text: str) -> None:
        self._put(path, text.encode())

    def publish(self, files: Mapping[Path, str]) -> None:
        if not any(source.exists() for source in files):
            return
        for source, path in files.items():
            if source.is_dir():
                for file in [each for each in source.rglob("*") if each.is_file()]:
                    self._put(f"{path}/{file.relative_to(source).as_posix()}", file.read_bytes())
                    file.unlink()
                for folder in sorted(source.rglob("*"), reverse=True):
                    folder.rmdir()
                source.rmdir()
            else:
                self._put(path, source.read_bytes())
                source.unlink()

    def delete(self, paths: Iterable[str]) -> list[str]:
        left = []
        for path in paths:
            if path.endswith("/"):
                for each in self._below(path):
                    del self._bucket.objects[each]
            elif self._below(path):
                left.append(path)
            else:
                self._bucket.objects.pop(path, None)
        return left

    def set_aside(self, path: str, beside: str | None = None) -> str:
        below = self._below(path)
        if path not in self._bucket.objects and not below:
            raise FileNotFoundError(2, "No such object", path)
        for number in count(1):
            target = f"{beside or path}{'' if number == 1 else f'.{number}'}{DAMAGED}"
            if target not in self._bucket.objects and not self._below(target):
                break
        for each in below or [path]:
            self._bucket.objects[target + each[len(path) :]] = self._bucket.objects.pop(each)
        return target.rpartition("/")[2]

    def sync(self, paths: Iterable[str]) -> None:
        pass

    @contextmanager
    def lock(self) -> Iterator[None]:
        if self._bucket.locked:
            raise DatasetError("The dataset is in use.")
        self._bucket.locked = True
        try:
            yield
        finally:
            self._bucket.locked = False
