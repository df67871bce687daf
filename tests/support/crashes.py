"""A command that dies at its n-th call to the disk, and the disks that a power cut may leave.

`Crasher` holds a process that has imported everything and forks for each command, under
`crash/shim.c`. `Disk` is a model of the directory, fed by the shim's journal, that keeps apart what
a file or a directory says from what was synced of it. Linux with a C compiler only.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

COMPILER = shutil.which("cc") or shutil.which("gcc")
SHIM = Path(__file__).parent / "crash" / "shim.c"
SERVER = "from tests.support import crashes; crashes.serve()"


# The process that crashes ------------------------------------------------------------------


def compiled(folder: Path) -> Path:
    """The shim, as a library in `folder`."""
    assert COMPILER
    library = folder / "shim.so"
    options = ["-shared", "-fPIC", "-O1", "-ldl", "-lpthread"]
    subprocess.run([COMPILER, str(SHIM), "-o", str(library), *options], check=True)
    return library


class Crasher:
    """Runs backfills, each in a process of its own, that can be killed at any of their calls."""

    def __init__(self, library: Path, url: str) -> None:
        self._url = url
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env={**os.environ, "LD_PRELOAD": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ask({"modules": self._ask({"url": url, "modules": []})["modules"]})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()

    def run(
        self,
        base: Path,
        *,
        kill_at: int = 0,
        journal: Path | None = None,
        refuse: Mapping[str, int] = {},
        options: Mapping[str, Any] = {},
    ) -> dict[str, Any]:
        """Pull into `base`/table, with `base`/home. The process dies before call `kill_at`.

        `refuse` maps kinds of calls to the errno that each gets. Of what comes back, `signal` is
        what ended the process, `statuses` are those of its runs and `calls` how many calls it made.
        """
        asked = {"base": str(base), "kill_at": kill_at, "refuse": dict(refuse)}
        return self._ask(
            {
                "url": self._url,
                **asked,
                "journal": str(journal or ""),
                "options": dict(options),
            }
        )

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


def serve() -> None:
    """Fork for each request. No thread may run here: what is imported starts none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("modules"):
            for name in request["modules"]:
                with suppress(ImportError):  # a few are made by others as they are imported
                    __import__(name)
            answers.write("{}\n")
        else:
            answers.write(json.dumps(_forked(request)) + "\n")
        answers.flush()


def _forked(request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        code = 1
        try:
            with os.fdopen(writing, "w") as answer:
                json.dump(_modules(request) if "modules" in request else _work(request), answer)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    _, status = os.waitpid(child, 0)
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return {"signal": killed, "code": status >> 8, **(json.loads(said) if said else {})}


def _modules(request: dict[str, Any]) -> dict[str, Any]:
    """Import all that a backfill needs, before the server forks."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        _work({"url": request["url"], "base": folder, "refuse": {}, "options": {}})
    return {"modules": sorted(sys.modules)}


def _work(request: dict[str, Any]) -> dict[str, Any]:
    import ctypes
    from dataclasses import replace

    from engine.errors import EtlError
    from tests.support.pulling import QUICK, pull

    base, options = Path(request["base"]), dict(request["options"])
    shim = ctypes.CDLL(None)
    for kind, number in request["refuse"].items():
        shim.shim_refuse(kind.encode(), number)
    journal = request.get("journal", "").encode()
    shim.shim_arm(str(base).encode(), ctypes.c_long(request.get("kill_at", 0)), journal)
    how = {name: options.pop(name) for name in ("force", "days_per_request") if name in options}
    try:
        pulled = pull(request["url"], base / "table", options=replace(QUICK, **how), **options)
    except EtlError as error:
        return {"error": str(error), "kind": type(error).__name__, "statuses": []}
    message = pulled.message if pulled.items else ""
    return {"statuses": pulled.statuses, "calls": shim.shim_count(), "error": message}


# The disk ----------------------------------------------------------------------------------


@dataclass
class Node:
    """A file or a directory: what it says, and what of that was synced."""

    data: bytearray = field(default_factory=bytearray)
    synced: bytes | None = None  # of a file; None: never
    entries: "dict[str, Node] | None" = None  # of a directory
    sure: "dict[str, Node]" = field(default_factory=dict)
    pending: "list[Change]" = field(default_factory=list)


@dataclass
class Change:
    """An entry of a directory that came, or (`node` None) went, and was not synced yet.

    A rename is two of them. No file system loses a file on the way: `arrival` is the change by
    which it comes to its new place, without which it does not leave the old one.
    """

    name: str
    node: Node | None
    arrival: "Change | None" = None
    home: Node | None = None  # the directory of an arrival


@dataclass(frozen=True)
class Step:
    """A call of the journal: its number, its kind and the paths that it was about."""

    call: int
    kind: str
    paths: str


class Disk:
    """A directory as it is, and as a power cut may leave it."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._nodes: dict[str, Node] = {}  # by inode
        self._root = self._read(base)

    def _read(self, path: Path) -> Node:
        node = Node()
        self._nodes[str(path.stat().st_ino)] = node
        if path.is_dir():
            node.entries = {each.name: self._read(each) for each in path.iterdir()}
            node.sure = dict(node.entries)
        else:
            node.data = bytearray(path.read_bytes())
            node.synced = bytes(node.data)
        return node

    def play(self, journal: bytes) -> Iterator[Step]:
        """Make one change after the other; each, before it is made."""
        at = 0
        while at < len(journal):
            end = journal.index(b"\n", at)
            number, kind, *words = journal[at:end].decode().split("\t")
            at = end + 1
            data = []
            if kind == "write":
                data = [journal[at : at + int(words[2])]]
                at += len(data[0]) + 1
            yield Step(int(number), kind, self._shown(words))
            getattr(self, f"_{kind}")(*words, *data)

    def _shown(self, words: list[str]) -> str:
        """Return the path of a call's file; a file without a name has none."""
        if words[0] in self._nodes:
            wanted = self._nodes[words[0]]
            return next((path for path, node in self._all() if node is wanted), "")
        return " ".join(each.removeprefix(f"{self._base}/") for each in words)

    def _all(self) -> Iterator[tuple[str, Node]]:
        """Everything that is there, with its path."""
        left = [("", self._root)]
        while left:
            path, node = left.pop()
            yield path, node
            below = (node.entries or {}).items()
            left += [(f"{path}/{name}" if path else name, child) for name, child in below]

    def _at(self, path: str) -> tuple[Node, str]:
        """The directory of a path, and the name in it."""
        node = self._root
        *above, name = Path(path).relative_to(self._base).parts
        for each in above:
            assert node.entries is not None
            node = node.entries[each]
        return node, name

    def _change(self, path: str, node: Node | None, arrival: Change | None = None) -> Change:
        parent, name = self._at(path)
        assert parent.entries is not None
        if node is None:
            del parent.entries[name]
        else:
            parent.entries[name] = node
        change = Change(name, node, arrival, parent)
        parent.pending.append(change)
        return change

    def _create(self, path: str, inode: str) -> None:
        self._nodes[inode] = Node()
        self._change(path, self._nodes[inode])

    def _mkdir(self, path: str, inode: str) -> None:
        self._nodes[inode] = Node(entries={})
        self._change(path, self._nodes[inode])

    def _link(self, path: str, inode: str) -> None:
        self._change(path, self._nodes[inode])

    def _remove(self, path: str) -> None:
        self._change(path, None)

    def _rename(self, old: str, new: str) -> None:
        parent, name = self._at(old)
        assert parent.entries is not None
        arrival = self._change(new, parent.entries[name])
        self._change(old, None, arrival)

    def _write(self, inode: str, at: str, length: str, data: bytes) -> None:
        if node := self._nodes.get(inode):  # else it has no name
            if len(node.data) < int(at):
                node.data.extend(bytes(int(at) - len(node.data)))
            node.data[int(at) : int(at) + int(length)] = data

    def _truncate(self, inode: str, length: str) -> None:
        if node := self._nodes.get(inode):
            del node.data[int(length) :]
            node.data.extend(bytes(int(length) - len(node.data)))

    def _fsync(self, inode: str) -> None:
        node = self._nodes.get(inode)
        if node is None:
            return
        if node.entries is None:
            node.synced = bytes(node.data)
            return
        for change in node.pending:
            if change.node is None:
                node.sure.pop(change.name, None)
            else:
                node.sure[change.name] = change.node
            if change.arrival and (other := change.arrival.home) and other is not node:
                _arrive(other, change.arrival)
        node.pending = []

    def image(self, cut: "Cut") -> dict[str, bytes | None]:
        """Return what is on the disk after a power cut: the bytes of files; None for folders."""
        found: dict[str, bytes | None] = {}
        kept: dict[int, bool] = {}

        def walk(node: Node, path: str) -> None:
            if node.entries is None:
                found[path] = cut.data(node)
                return
            found[path] = None
            entries = dict(node.sure)
            for change in node.pending:
                wanted = kept.setdefault(id(change), cut.keeps())
                if change.arrival and change.arrival.home and _is_pending(change.arrival):
                    wanted = wanted and kept.setdefault(id(change.arrival), cut.keeps())
                if not wanted:
                    continue
                if change.node is None:
                    entries.pop(change.name, None)
                else:
                    entries[change.name] = change.node
            for name, child in sorted(entries.items()):
                walk(child, f"{path}/{name}" if path else name)

        walk(self._root, "")
        return found


def _is_pending(change: Change) -> bool:
    return any(each is change for each in change.home.pending) if change.home else False


def _arrive(directory: Node, arrival: Change) -> None:
    """Make the other half of a rename as sure as the first."""
    if _is_pending(arrival):
        directory.pending = [each for each in directory.pending if each is not arrival]
        assert arrival.node
        directory.sure[arrival.name] = arrival.node


@dataclass
class Cut:
    """How much of what was not synced a power cut leaves."""

    name: str
    names: float  # the probability that a change of an entry is there
    contents: str  # "synced", "half", "all" or "any"
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    def keeps(self) -> bool:
        """Whether the next change of an entry is there."""
        return self.dice.random() < self.names

    def data(self, node: Node) -> bytes:
        """Return the bytes of a file."""
        synced, half = node.synced or b"", len(node.data) // 2
        choices = {
            "synced": synced,
            "half": bytes(node.data[:half]) + synced[half:],
            "all": bytes(node.data),
        }
        how = self.contents
        return choices[self.dice.choice(list(choices)) if how == "any" else how]


def cuts(seed: int) -> list[Cut]:
    """The states of the disk that are tried at each moment."""
    fixed = [Cut("all lost", 0, "synced"), Cut("data lost", 1, "synced"), Cut("halves", 1, "half")]
    dice = [random.Random(f"{seed}/{each}") for each in range(2)]
    return [*fixed, *(Cut(f"seed {seed}/{at}", 0.5, "any", each) for at, each in enumerate(dice))]


def build(base: Path, image: Mapping[str, bytes | None]) -> None:
    """Put an image in the place of `base`."""
    if base.exists():
        shutil.rmtree(base)
    for name, data in image.items():
        path = base / name if name else base
        if data is None:
            path.mkdir()
        else:
            path.write_bytes(data)
