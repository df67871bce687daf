"""What batches leave is tidied: without rejects, old, under our own names, once a day (P3)."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ulid import ULID

from engine.dataset import batch_folders
from engine.dataset.batch_folders import DAY_MS, tidy
from engine.sandbox import Sandbox, Spec
from tests.support.pulling import DAYS, QUICK, pull

NOW = 1_700_000_000_000
FUTURE = NOW + 400 * DAY_MS


def made(folder: Path, at: int, *files: str) -> str:
    """The folder of a batch of that moment, with what each batch has, and these."""
    name = str(ULID.from_timestamp(at / 1000))
    for file in ("input_files/fileMetaData1.json", *files):
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    return name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def days_ago(days: float) -> int:
    return int(NOW - days * DAY_MS)


def test_what_goes_and_what_stays(tmp_path: Path) -> None:
    """Only what is older than it has to be and has no rejects goes."""
    old = [made(tmp_path, days_ago(days)) for days in (400, 32, 31.1)]
    stays = [
        made(tmp_path, days_ago(29)),
        made(tmp_path, days_ago(1)),
        made(tmp_path, days_ago(40), "row_errors/conversion_errors_0.json", "batch.json"),
        made(tmp_path, days_ago(41), "row_error_samples.json"),
        made(tmp_path, days_ago(42), "a note of somebody's"),
        made(tmp_path, days_ago(43), "input_files/mine.txt"),
        made(tmp_path, FUTURE),
    ]
    assert tidy(tmp_path, 30, NOW) == len(old)
    assert names(tmp_path) == sorted(stays)


@pytest.mark.parametrize(
    "name",
    [
        "notes", "2020-01-01", "01BX5ZZKBKACTAV9WEVGEMMVR", "01BX5ZZKBKACTAV9WEVGEMMVRZZ",
        "01bx5zzkbkactav9wevgemmvrz", "81BX5ZZKBKACTAV9WEVGEMMVRZ", "01BX5ZZKBKACTAV9WEVGEMMVRI",
        "01BX5ZZKBKACTAV9WEVGEMMVRZ\n", "\u06601BX5ZZKBKACTAV9WEVGEMMVRZ",
    ],
)  # fmt: skip
def test_a_name_that_is_not_ours(tmp_path: Path, name: str) -> None:
    """It stays, however old."""
    (tmp_path / name).mkdir()
    made(tmp_path, NOW)
    tidy(tmp_path, 0, NOW + DAY_MS)
    assert (tmp_path / name).is_dir()


def test_a_link_or_a_file_under_our_name(tmp_path: Path) -> None:
    """Neither is followed nor removed."""
    outside, folder = tmp_path / "outside", tmp_path / "_batches"
    made(outside, days_ago(50))
    first, second, third = (str(ULID.from_timestamp(days_ago(d) / 1000)) for d in (60, 61, 62))
    made(folder, NOW)
    (folder / first).symlink_to(outside / names(outside)[0])
    (folder / second).write_text("")
    (folder / third).mkdir()
    (folder / third / "input_files").symlink_to(outside / names(outside)[0] / "input_files")
    assert tidy(folder, 0, NOW + DAY_MS) == 0
    assert len(names(folder)) == 4
    assert (outside / names(outside)[0] / "input_files" / "fileMetaData1.json").exists()


def test_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a day has a batch of its own, names are listed and no folder is looked into."""
    old, midnight = made(tmp_path, days_ago(40)), NOW // DAY_MS * DAY_MS
    made(tmp_path, midnight)
    plain = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: pytest.fail(f"{path} was listed"))
    for later in (0, 1, DAY_MS - 1):
        assert tidy(tmp_path, 30, midnight + later) == 0
    monkeypatch.setattr(Path, "iterdir", plain)
    assert old in names(tmp_path)
    assert tidy(tmp_path, 30, midnight + DAY_MS) == 1
    assert old not in names(tmp_path)


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    """Neither 400 days ahead nor back does it make anything older than the batches say."""
    for days in (1, 10, 29):
        made(tmp_path, days_ago(days))
    everything = names(tmp_path)
    for now in (FUTURE, NOW, NOW - 400 * DAY_MS, FUTURE + DAY_MS, NOW):
        assert tidy(tmp_path, 30, now) == 0
    assert names(tmp_path) == everything
    everything = sorted([*everything, made(tmp_path, FUTURE)])  # a run while the clock was wrong
    for now in (NOW + DAY_MS, FUTURE - DAY_MS, NOW - 20 * DAY_MS):
        assert tidy(tmp_path, 30, now) == 0
    assert names(tmp_path) == everything


def test_as_much_as_there_is_time_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Years of them go in parts, at one run after the other, the oldest first."""
    monkeypatch.setattr(batch_folders, "MOST", 2)
    made(tmp_path, NOW)
    old = sorted(made(tmp_path, days_ago(31 + days)) for days in range(5))
    left = []
    for _ in range(4):
        tidy(tmp_path, 30, NOW + DAY_MS)
        left.append([name for name in old if name in names(tmp_path)])
    assert left == [old[2:], old[4:], [], []]


def test_0_and_for_good(tmp_path: Path) -> None:
    """With 0 the newest alone stays, with the most that can be said all do."""
    made(tmp_path, 1)
    newest = made(tmp_path, NOW)
    assert tidy(tmp_path, 100_000, NOW + DAY_MS) == 0
    assert tidy(tmp_path, 0, NOW + DAY_MS) == 1
    assert names(tmp_path) == [newest]
    assert tidy(tmp_path / "nothing", 0, NOW) == 0


def test_a_run_tidies(tmp_path: Path) -> None:
    """The first of a day does it, as its flow says, and what has rejects stays to be replayed."""
    table = tmp_path / "table"
    folder = table / "_batches"
    with Sandbox(Spec(events_per_day=20)) as sandbox:
        pull(sandbox.url, table, DAYS[:1])
        (first,) = names(folder)
        began = ULID.from_str(first).milliseconds
        rejected = made(folder, began - 39 * DAY_MS, "row_errors/conversion_errors_0.json")
        old, older = (made(folder, began - days * DAY_MS) for days in (29, 31))
        later = replace(QUICK, now=lambda: began + DAY_MS)
        pull(sandbox.url, table, DAYS[1:], later)
        assert {first, old, rejected} < set(names(folder))
        assert older not in names(folder)
        shutil.rmtree(folder / (set(names(folder)) - {first, old, rejected}).pop())
        pull(sandbox.url, table, DAYS, later, keep_batches_days=0)
    assert names(folder) == sorted([first, rejected])
