"""Blocks of lines to batches in their order, read here and, where there is much, by a twin as well.

To read a block holds the interpreter's lock from its beginning to its end, so that a thread would
not help: the twin is a process of its own. It is told where in a file a block lies, and tells where
in another one the batch lies that it made of it. It knows nothing else, decides nothing, and ends
with its parent; if it is gone, its blocks are read here.
"""

import gc
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.model.batch import Batch, Lines, split
from engine.transform.decode import Piece
from engine.transform.fast_path import Direct

WORTH = 32 << 20  # bytes that are read before a twin is started: it costs a quarter of a second
DEPTH = 2  # blocks in its hands
APART = 64 << 20  # bytes from one place to the next in either file; more than a block has
NEEDED = re.compile(r"PATH|HOME|LANG|TMPDIR|VIRTUAL_ENV|(LC_|LD_|DYLD_|PYTHON)\w+")
GONE = (EOFError, OSError, pickle.UnpicklingError)  # it was killed; a disk is full


@dataclass(slots=True)
class _Place:
    """A piece in its turn, and what was found in it: nothing as long as the twin has it."""

    piece: Piece
    found: list[Piece | Batch] = field(default_factory=list)

    def settle(self, batch: Batch | None) -> None:
        """Lines that are apart come first: so the last line of an answer stays the last one."""
        assert isinstance(self.piece, bytes)
        if batch is None:
            self.found = [self.piece]
            return
        block, apart = split(self.piece, batch.apart)
        batch.lines = Lines(block, len(batch.keys[0]))
        self.found = [apart, batch] if apart else [batch]


class Reader:
    """Passes pieces on in their order, those that can be read directly as their batches.

    `directory` takes two files without a name. `twin`: whether another core is free.
    """

    def __init__(self, direct: Direct, directory: Path, *, twin: bool) -> None:
        self._direct = direct
        self._directory = directory
        self._wanted = twin
        self._twin: _Twin | None = None
        self._seen = 0  # bytes of blocks that could be given away
        self._given: deque[_Place] = deque()

    def batches(self, pieces: Iterator[Piece]) -> Iterator[Piece | Batch]:
        """What `engine.transform.decode.read` calls for every block."""
        waiting: deque[_Place] = deque()
        for piece in pieces:
            place = _Place(piece)
            waiting.append(place)
            if not isinstance(piece, bytes) or not self._direct.willing():
                place.found = [piece]
            elif not self._give(place, piece):
                place.settle(self._direct.read(piece))
            while self._given and self._twin and self._twin.has_answered():
                self._take()
            while waiting and (waiting[0].found or len(waiting) > 2 * DEPTH):
                yield from self._await(waiting.popleft())
        while waiting:
            yield from self._await(waiting.popleft())

    def _give(self, place: _Place, block: bytes) -> bool:
        """Whether the twin took the block."""
        self._seen += len(block)
        if not self._wanted or self._seen < WORTH or len(self._given) >= DEPTH:
            return False
        try:
            self._twin = self._twin or _Twin(self._direct, self._directory)
            self._twin.give(block, self._direct.known)
        except GONE:
            self._do_without()
            return False
        self._given.append(place)
        return True

    def _await(self, place: _Place) -> list[Piece | Batch]:
        while not place.found:
            self._take()
        return place.found

    def _take(self) -> None:
        """What the twin made of the first block that it has."""
        assert self._twin
        place = self._given[0]
        assert isinstance(place.piece, bytes)
        try:
            batch = self._twin.take()
        except GONE:
            self._do_without()
            return
        self._given.popleft()
        self._direct.note(batch)
        place.settle(batch)

    def _do_without(self) -> None:
        """The twin is gone, or there is no room for its files: nothing is lost but time."""
        self.close()
        self._wanted = False
        while self._given:
            place = self._given.popleft()
            assert isinstance(place.piece, bytes)
            place.settle(self._direct.read(place.piece))

    def close(self) -> None:
        """End the twin."""
        if self._twin:
            self._twin.close()
            self._twin = None


class _Twin:
    """The other process, seen from this one."""

    def __init__(self, direct: Direct, directory: Path) -> None:
        with ExitStack() as stack:
            self._blocks, self._batches = (
                stack.enter_context(tempfile.TemporaryFile(dir=directory)) for _ in range(2)
            )
            ours, theirs = map(stack.enter_context, socket.socketpair())
            handles = [theirs.fileno(), self._blocks.fileno(), self._batches.fileno()]
            start = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve"
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-c", f"{start}(*{handles})"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # an error of it is told to its parent
                env=_environment(),
                pass_fds=handles,
                process_group=0,  # Ctrl-C is its parent's business
            )
            stack.callback(self._process.wait)
            stack.callback(self._process.kill)
            theirs.close()
            self._connection = stack.enter_context(Connection(ours.detach()))
            self._connection.send(direct)
            self._names: frozenset[str] = frozenset()
            self._count = 0
            self._open = stack.pop_all()

    def give(self, block: bytes, names: frozenset[str]) -> None:
        """Have it read `block`; `names`: those that are known by now."""
        offset = self._count % DEPTH * APART
        self._count += 1
        _put(self._blocks.fileno(), block, offset)
        self._connection.send((offset, len(block), names if names != self._names else None))
        self._names = names

    def has_answered(self) -> bool:
        """Whether `take` would not have to wait; true as well of one that is gone."""
        return self._connection.poll()

    def take(self) -> Batch | None:
        """The batch in the block that was given first, without its lines; None: declined."""
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        offset, size = answer
        made = os.pread(self._batches.fileno(), size, offset)
        batch: Batch | None = pickle.loads(made)  # noqa: S301 - by our own process, into our file
        return batch

    def close(self) -> None:
        """End it, whatever it does."""
        self._open.close()


def serve(connected: int, blocks: int, batches: int) -> None:
    """What the twin does, until its parent is gone: a block, a batch, a block …"""
    gc.disable()  # as a pull does
    with Connection(connected) as connection, suppress(EOFError, ConnectionError):
        direct: Direct = connection.recv()
        while True:
            offset, size, names = connection.recv()
            try:
                if names is not None:
                    direct.learn(names)
                batch = direct.attempt(os.pread(blocks, size, offset))
                if batch:
                    batch.lines = []
                made = pickle.dumps(batch, protocol=5)
                if len(made) > APART:  # it would reach into the next one's place
                    made = pickle.dumps(None)
                _put(batches, made, offset)
            except Exception as error:  # noqa: BLE001 - raised again in the parent
                connection.send(error)
            else:
                connection.send((offset, len(made)))


def _put(file: int, data: bytes, offset: int) -> None:
    """All of `data` into `file` at `offset`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _environment() -> dict[str, str]:
    """What a Python needs to start, and no more: who knows which variable holds a password (P7).

    And Arrow's allocator as here.
    """
    kept = {name: value for name, value in os.environ.items() if NEEDED.fullmatch(name)}
    return kept | {"ARROW_DEFAULT_MEMORY_POOL": pa.default_memory_pool().backend_name}


def cores() -> int:
    """How many this process may use."""
    count: Any = getattr(os, "sched_getaffinity", None)
    return len(count(0)) if count else os.cpu_count() or 1
