"""Blocks that a second process reads as well come out as if this one had read all of them."""

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.dataset.parquet_writer import StagedBatch, Writer
from engine.model.batch import Batch, Reject
from engine.sandbox import Sandbox, Spec, day_lines
from engine.transform import second_process
from engine.transform.decode import Piece
from engine.transform.fast_path import Direct
from engine.transform.second_process import Reader
from tests.support.commands import children
from tests.support.pulling import DAYS, RULES, pull, rows

SCHEMA, MAPPING = RULES.compile()
COUNT = 24


def direct_of(kind: type[Direct] = Direct) -> Direct:
    direct = kind(MAPPING.rules, MAPPING.destinations, keep_unmapped=True)
    direct.learn(NAMES)
    return direct


def made() -> tuple[list[Piece], frozenset[str]]:
    """Blocks of wide events, some that have to be declined among them, and a reject."""
    spec = Spec(events_per_day=100 * COUNT, shape="wide", duplicate_percent=0)
    found = b"".join(day_lines(spec, DAYS[0])).splitlines()
    names = {name for line in found for name in json.loads(line)["properties"]}
    pieces: list[Piece] = [b"\n".join(found[at : at + 100]) for at in range(0, len(found), 100)]
    pieces[3] = b'{"event":"e","properties":{"unknown":1}}'
    pieces.insert(9, Reject("lines", "code", "too long", b"x"))
    return pieces, frozenset(names)


PIECES, NAMES = made()


def shown(found: list[Piece | Batch]) -> list[Any]:
    """What can be compared."""
    return [
        [list(one.lines), *(as_list(column) for column in (*one.columns, *one.keys, one.rest))]
        if isinstance(one, Batch)
        else one
        for one in found
    ]


def as_list(column: pa.Array) -> list[Any]:
    return list(column.to_pylist())


@pytest.fixture(scope="module", autouse=True)
def _no_rest() -> Iterator[None]:
    """After a block that was declined, the next one is tried, whoever read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.transform.fast_path.LONGEST_PAUSE", 0)
        yield


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setattr(second_process, "WORTH", 0)
    made = Reader(direct_of(), tmp_path, twin=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    reader = Reader(direct_of(), tmp_path_factory.mktemp("alone"), twin=False)
    return shown(list(reader.batches(iter(PIECES))))


def slowly(reader: Reader, at: int = -1, do: Callable[[], Any] = lambda: None) -> Iterator[Piece]:
    """The pieces, so that the twin gets its share; before the one `at` something is done."""
    for number, piece in enumerate(PIECES):
        if number == at:
            do()
        if reader._twin and len(reader._given) == second_process.DEPTH:
            reader._twin._connection.poll(30)
        yield piece


def test_a_twin_changes_nothing(reader: Reader, alone: list[Any]) -> None:
    """P3: the same batches in the same order, whoever read them; declined ones stay blocks."""
    taken = 0
    real = reader._take

    def take() -> None:
        nonlocal taken
        taken += 1
        real()

    reader._take = take  # type: ignore[method-assign]  # to count its calls
    assert shown(list(reader.batches(slowly(reader)))) == alone
    assert taken > COUNT // 2
    assert [number for number, one in enumerate(alone) if isinstance(one, bytes)] == [3]


@pytest.mark.parametrize("at", [1, 2, 5, 12])
def test_a_twin_that_is_killed(reader: Reader, alone: list[Any], at: int) -> None:
    """P2: its blocks are read here, and so are all that follow."""

    def kill() -> None:
        assert reader._twin
        reader._twin._process.kill()
        reader._twin._process.wait()

    assert shown(list(reader.batches(slowly(reader, at, kill)))) == alone
    assert reader._twin is None


def test_no_room_for_its_files(
    tmp_path: Path, alone: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a twin it takes longer, and no more than that."""
    monkeypatch.setattr(second_process, "WORTH", 0)
    reader = Reader(direct_of(), tmp_path / "missing", twin=True)
    assert shown(list(reader.batches(iter(PIECES)))) == alone


class Broken(Direct):
    """Has a defect."""

    def attempt(self, block: bytes) -> Batch | None:
        raise ZeroDivisionError(len(block))


def test_an_error_of_the_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect is no reason to go on: it is raised here as it was there."""
    monkeypatch.setattr(second_process, "WORTH", 0)
    block = b'{"event":"e","properties":{"item_id":" : "}}'
    reader = Reader(direct_of(Broken), tmp_path, twin=True)
    try:
        with pytest.raises(ZeroDivisionError, match=str(len(block))):
            list(reader.batches(iter([block])))
    finally:
        reader.close()


def test_a_batch_too_large_for_its_place(
    tmp_path: Path, alone: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3: it could reach into the next one's: the plain way makes it anew."""
    monkeypatch.setattr(second_process, "WORTH", 0)
    monkeypatch.setattr(second_process, "APART", 1000)
    blocks, batches = ((tmp_path / name).open("w+b") for name in ("blocks", "batches"))
    ours, theirs = Pipe()
    with blocks, batches, ours:
        block = next(piece for piece in PIECES if isinstance(piece, bytes))
        blocks.write(block)
        blocks.flush()
        ours.send(direct_of())
        ours.send((0, len(block), NAMES))
        handle = os.dup(theirs.fileno())
        theirs.close()
        serving = threading.Thread(
            target=second_process.serve, args=(handle, blocks.fileno(), batches.fileno())
        )
        serving.start()
        offset, size = ours.recv()
        ours.close()
        serving.join(30)
        assert size <= 1000
        batches.seek(offset)
        assert pickle.loads(batches.read(size)) is None
    gc.enable()


def test_a_twin_that_cannot_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: one that died at its start is waited for, and leaves no zombie."""

    def send(*_: object) -> None:
        raise BrokenPipeError

    before = offspring()
    monkeypatch.setattr(second_process, "WORTH", 0)
    monkeypatch.setattr("multiprocessing.connection.Connection.send", send)
    reader = Reader(direct_of(), tmp_path, twin=True)
    assert list(reader.batches(iter(PIECES[:2])))
    assert offspring() <= before


def offspring() -> set[int]:
    """The processes that this one started, those that have ended among them."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = entry.joinpath("stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                found.add(int(entry.name))
    return found


class Slow:
    """Stands for a twin that has not answered yet, until somebody waits for it."""

    def __init__(self, *_: object) -> None:
        self.waited = 0

    def give(self, block: bytes, names: frozenset[str]) -> None:
        pass

    def has_answered(self) -> bool:
        return False

    def take(self) -> None:
        self.waited += 1

    def close(self) -> None:
        pass


def test_nobody_runs_far_ahead_of_a_slow_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: what was read after its block waits in memory, so there is little of it."""
    monkeypatch.setattr(second_process, "WORTH", 0)
    monkeypatch.setattr(second_process, "_Twin", Slow)
    reader = Reader(direct_of(), tmp_path, twin=True)
    ahead = 0

    def counted() -> Iterator[Piece]:
        nonlocal ahead
        for piece in PIECES:
            ahead += 1
            yield piece

    most = 0
    for _ in reader.batches(counted()):
        ahead -= 1
        most = max(most, ahead)
    assert 0 < most <= 2 * second_process.DEPTH


def test_little_is_read_alone(tmp_path: Path) -> None:
    """A second process is not started for what is read sooner than that."""
    reader = Reader(direct_of(), tmp_path, twin=True)
    assert list(reader.batches(iter(PIECES)))
    assert reader._twin is None


PARENT = """
import sys, time
from pathlib import Path
from engine.transform import second_process as twin
from tests.transform.test_second_process import PIECES, direct_of
twin.WORTH = 0
reader = twin.Reader(direct_of(), Path(sys.argv[1]), twin=True)
for _ in reader.batches(iter(PIECES)):
    pass
print(reader._twin._process.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_with_its_parent_and_has_no_credentials(tmp_path: Path) -> None:
    """P7, P8: a command that is killed leaves nothing behind; Ctrl-C is not for the twin."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        env=os.environ | {"SHOP_SECRET": "never to be seen"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert [child for child, _ in children(process.pid)] == [pid]
        assert b"never to be seen" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert os.getpgid(pid) != os.getpgid(process.pid)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_a_whole_pull_with_a_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2, P3: the table is the same, duplicates and rejects included."""
    started = []
    real = second_process._Twin

    def start(*arguments: Any) -> second_process._Twin:
        started.append(real(*arguments))
        return started[-1]

    ended: list[bool | None] = []
    finish = Writer.finish

    def finishing(writer: Writer, *given: Any) -> StagedBatch:
        ended.append(started[0]._process.poll() is not None if started else None)
        return finish(writer, *given)

    monkeypatch.setattr(second_process, "_Twin", start)
    monkeypatch.setattr(Writer, "finish", finishing)
    spec = Spec(events_per_day=20_000, shape="wide", duplicate_percent=3)
    with Sandbox(spec) as sandbox:
        assert pull(sandbox.url, tmp_path / "alone", DAYS[:1]).statuses == ["success"]
        assert not started
        monkeypatch.setattr(second_process, "WORTH", 0)
        monkeypatch.setattr("engine.sync.executors.inline.cores", lambda: 2)
        done = pull(sandbox.url, tmp_path / "together", DAYS[:1])
    assert done.records["skippedRecordCount"] > 0
    assert rows(tmp_path / "together") == rows(tmp_path / "alone")
    assert len(started) == 1
    assert ended == [None, True]  # P6: not both at the time that takes most memory
