"""Each event is written once, to files that readers can skip; rejects are written verbatim."""

import json
from concurrent.futures import Executor, Future
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as arrow_dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dataset import parquet_writer as module
from engine.dataset import spool as spools
from engine.dataset.parquet_writer import StagedBatch, Writer
from engine.model.batch import CORRUPT, REQUIRED, Batch, Reject

SCHEMA = pa.schema([("n", pa.int64()), ("unmapped", pa.string()), ("event_date", pa.date32())])
DAYS = [date(2024, 1, day) for day in (1, 2, 3)]


def batch(rows: list[tuple[int, date]], ids: list[Any] | None = None) -> Batch:
    ids = ids or [None] * len(rows)
    table = pa.RecordBatch.from_arrays(
        [
            pa.array([n for n, _ in rows], pa.int64()),
            pa.nulls(len(rows), pa.string()),
            pa.array([day for _, day in rows], pa.date32()),
        ],
        schema=SCHEMA,
    )
    same = ["x"] * len(rows)
    return Batch(table=table, keys=[same, same, same, ids, [n for n, _ in rows]])


def write(directory: Path, batches: list[Batch]) -> StagedBatch:
    writer = Writer(directory, "B", SCHEMA)
    for each in batches:
        writer.write(each)
    staged = writer.finish()
    writer.close()
    return staged


def read(directory: Path, staged: StagedBatch) -> list[tuple[int, date]]:
    found = []
    for file in staged.files:
        numbers = pq.read_table(directory / file.path, columns=["n"], partitioning=None)
        assert len(numbers) == file.rows
        found += [(n, file.day) for n in numbers.column("n").to_pylist()]
    return sorted(found)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 50), st.sampled_from(DAYS), st.sampled_from([None, "a", "b"])),
            max_size=30,
        ),
        max_size=6,
    ),
    st.sampled_from([1, 1 << 20]),
)
def test_every_row_is_written_once(
    tmp_path_factory: pytest.TempPathFactory,
    given_rows: list[list[tuple[int, date, str | None]]],
    halved: int,
) -> None:
    """For any mix of days, sizes and duplicates, the files hold each row that stays, once."""
    directory = tmp_path_factory.mktemp("staged")
    batches = [batch([(n, d) for n, d, _ in r], [i for _, _, i in r]) for r in given_rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spools, "SPOOL_ROWS", 3)
        patch.setattr(module, "GROUP_ROWS", 7)
        patch.setattr(module, "FILE_BYTES", 2000)
        patch.setattr(module, "HELD_BYTES", 300)
        patch.setattr(spools, "HALVED", halved)
        staged = write(directory, batches)
    expected: list[tuple[int, date]] = []
    newest: dict[tuple[str, date], int] = {}
    for n, day, insert_id in [row for rows in given_rows for row in rows]:
        if insert_id is None:
            expected.append((n, day))
        else:
            newest[insert_id, day] = max(n, newest.get((insert_id, day), -1))
    expected += [(n, day) for (_, day), n in newest.items()]
    assert read(directory, staged) == sorted(expected)
    assert staged.duplicates == sum(map(len, given_rows)) - len(expected)


def test_rows_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: all days of a window together have no more rows in memory than one day would."""
    monkeypatch.setattr(module, "HELD_BYTES", 20_000)
    writer = Writer(tmp_path, "B", SCHEMA)
    rows = [(n, date(2024, 1, n % 31 + 1)) for n in range(310)]
    for _ in range(30):
        writer.write(batch(rows))
        assert sum(day.held_bytes for day in writer._days.values()) <= 20_000
    staged = writer.finish()
    writer.close()
    assert read(tmp_path, staged) == sorted(rows * 30)


class Later(Executor):
    """A thread pool that works only when a result is awaited, like a disk that is always late."""

    def __init__(self) -> None:
        self.waiting: list[pa.RecordBatch] = []

    def submit(self, fn: Any, /, *given: Any, **named: Any) -> Any:
        waiting = self.waiting

        class Wait(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                waiting[:] = [each for each in waiting if each is not given[0]]
                return fn(*given, **named)

        waiting.extend(given[:1])
        return Wait()


def test_rows_that_wait_for_the_disk_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: rows on their way to the disk count as rows in memory."""
    monkeypatch.setattr(module, "HELD_BYTES", 20_000)
    monkeypatch.setattr(spools, "SPOOL_ROWS", 10)
    writer = Writer(tmp_path, "B", SCHEMA)
    disk = Later()
    with monkeypatch.context() as patch:
        patch.setattr(writer, "_encoders", disk)
        most = 0
        for number in range(300):
            day = date(2024, 1, 1 + number % 31)
            writer.write(batch([(n, day) for n in range(200)]))
            most = max(most, sum(rows.nbytes for rows in disk.waiting))
        for spool in writer._days.values():
            spool.wait()
    assert 10_000 < most < 30_000
    staged = writer.finish()
    writer.close()
    assert sum(file.rows for file in staged.files) == 300 * 200


def test_files_and_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: a row group ends at its size, a file soon after its own, and no file is empty."""
    monkeypatch.setattr(spools, "SPOOL_ROWS", 500)
    monkeypatch.setattr(module, "GROUP_ROWS", 1000)
    monkeypatch.setattr(module, "FILE_BYTES", 10_000)
    staged = write(tmp_path, [batch([(n * k, DAYS[0]) for n in range(500)]) for k in range(40)])
    assert len(staged.files) > 1
    for file in staged.files:
        metadata = pq.read_metadata(tmp_path / file.path)
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert all(0 < rows <= 1500 for rows in groups)
        assert metadata.row_group(0).column(0).compression == "ZSTD"
        assert metadata.row_group(0).column(0).statistics.has_min_max


KEYED = pa.schema(
    [
        ("_t", pa.struct([("e", pa.string()), ("i", pa.string()), ("t", pa.int64())])),
        ("unmapped", pa.string()),
        ("event_date", pa.date32()),
    ]
)
PATHS: list[tuple[str, ...]] = [("_t", "e"), ("_t", "e"), ("_t", "t"), ("_t", "i"), ("_t", "t")]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.lists(
                st.tuples(
                    st.sampled_from([None, "a", "b"]), st.integers(0, 2), st.sampled_from(DAYS[:2])
                ),
                min_size=1,
                max_size=9,
            ),
        ),
        max_size=6,
    )
)
def test_keys_among_the_columns_are_read_from_the_spool(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[tuple[bool, list[tuple[Any, int, date]]]],
) -> None:
    """The rows that stay are the same as with keys that are written apart."""

    def rows(*, among: bool) -> Any:
        directory = tmp_path_factory.mktemp("batch")
        writer = Writer(directory, "B", KEYED)
        for known, block in batches:
            ids = pa.array([name for name, _, _ in block], pa.string())
            events = pa.array(["e"] * len(block), pa.string())
            times = pa.array([time for _, time, _ in block], pa.int64())
            record = pa.StructArray.from_arrays(
                [events, ids, times], fields=list(KEYED.field(0).type)
            )
            days = pa.array([day for _, _, day in block], pa.date32())
            table = pa.RecordBatch.from_arrays(
                [record, pa.nulls(len(block), pa.string()), days], schema=KEYED
            )
            keys = [events, events, times, ids, times]
            paths = PATHS if among and known else []
            writer.write(Batch(table=table, keys=keys, key_paths=paths))
        staged = writer.finish()
        writer.close()
        files = [(file.day, directory / file.path) for file in staged.files]
        return [
            (day, pq.read_table(path, partitioning=None).column("_t").to_pylist())
            for day, path in files
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spools, "SPOOL_ROWS", 4)
        assert rows(among=True) == rows(among=False)


def test_a_day_without_rows_left_has_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a row of the table replaces every new one, no empty file is committed."""
    monkeypatch.setattr(spools, "SPOOL_ROWS", 2)
    monkeypatch.setattr(module, "GROUP_ROWS", 2)
    monkeypatch.setattr(module, "FILE_BYTES", 1)
    old, new = [(1, DAYS[0]), (2, DAYS[0])], [(3, DAYS[0]), (4, DAYS[0])]
    staged = write(tmp_path, [batch(old, ["a", "b"]), batch(new, ["a", "b"])])
    assert read(tmp_path, staged) == new
    assert len(staged.files) == 1
    assert staged.duplicates == 2


def test_rejects_are_written_verbatim(tmp_path: Path) -> None:
    """P3: the exact bytes of a rejected line can be read back, whatever they are."""
    raw = b'{"event":"\xff\xfe", \x00 "\xed\xa0\x80" \xf0\x9f\x98\x85'
    violation = {"keyword": "required", "pointerToViolation": "#/_extconndev"}
    rejects = [
        Reject("lines", CORRUPT, "cannot be read", raw),
        Reject("check", REQUIRED, "no time", b"{}", (violation,)),
        Reject("lines", CORRUPT, "too long", b"part", part=1),
    ]
    write(tmp_path, [Batch(rejects=rejects)])
    folder = tmp_path / "batch" / "row_errors"
    lines = (folder / "parsing_errors_0.json").read_text().splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first["_corrupt_record"].encode("utf-8", "surrogateescape") == raw
    assert first["_errors"] == [{"code": CORRUPT, "message": "cannot be read"}]
    assert second["_part"] == 1
    checked = json.loads((folder / "conversion_errors_0.json").read_text())
    assert checked["_validationErrors"] == [violation]
    samples = (tmp_path / "batch" / "row_error_samples.json").read_text().splitlines()
    assert len(samples) == 3


def test_each_reject_has_its_line_and_its_reason(tmp_path: Path) -> None:
    """Lines that fail alike share the text of their reason; each has its own bytes, in order."""
    kinds = [
        Reject("check", REQUIRED, "no time", b"", ({"keyword": "required", "message": "é"},)),
        Reject("check", REQUIRED, "no time", b"", ({"keyword": "required", "message": "no"},)),
        Reject("check", REQUIRED, "no times", b""),
    ]
    rejects = [kinds[row % 3].of(b'{"row":"%d \xc3\xa9"}' % row) for row in range(9)]
    write(tmp_path, [Batch(rejects=rejects[:5]), Batch(rejects=rejects[5:])])
    name = "conversion_errors_0.json"
    text = (tmp_path / "batch" / "row_errors" / name).read_bytes()
    assert text.isascii()
    plain = [
        {
            "_corrupt_record": reject.raw.decode(),
            "_errors": [{"code": reject.code, "message": reject.message}],
            "_filename": name,
        }
        | ({"_validationErrors": list(reject.violations)} if reject.violations else {})
        for reject in rejects
    ]
    assert [json.loads(line) for line in text.splitlines()] == plain


def test_no_rows_leave_no_file(tmp_path: Path) -> None:
    """A day without events has no data file, and no reject file without rejects."""
    assert write(tmp_path, []) == StagedBatch([], 0)
    assert not (tmp_path / "batch").exists()


def test_files_are_readable_by_glob(tmp_path: Path) -> None:
    """A plain reader finds the day in the path, and no second copy of it in the file."""
    write(tmp_path, [batch([(1, DAYS[0]), (2, DAYS[1])])])
    found = arrow_dataset.dataset(
        [str(p) for p in tmp_path.glob("event_date=*/*.parquet")],
        partitioning=arrow_dataset.partitioning(flavor="hive"),
        partition_base_dir=str(tmp_path),
    ).to_table()
    assert sorted(found.column("event_date").to_pylist()) == ["2024-01-01", "2024-01-02"]
    file = next(tmp_path.glob("event_date=*/*.parquet"))
    assert pq.read_schema(file).names == ["n", "unmapped"]
