"""Folders of batches are deleted if they are old, without rejects and ours, once a day (P3)."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ulid import ULID

from engine.dataset import old_batches
from engine.dataset.old_batches import DAY_MS
from engine.dataset.storage.local import LocalStorage
from engine.sandbox import Sandbox, Spec
from tests.support.pulling import DAYS, QUICK, pull

NOW = 1_700_000_000_000
FUTURE = NOW + 400 * DAY_MS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the batches of a dataset."""
    folder = tmp_path / "_batches"
    folder.mkdir()
    return folder


def clean_up(folder: Path, keep_days: float, now: int) -> int:
    return old_batches.clean_up(LocalStorage(folder.parent), keep_days, now)


def made(folder: Path, at: int, *files: str) -> str:
    """Make the folder of a batch of that moment, with these files and one that each batch has."""
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


def test_only_old_batches_without_rejects_are_deleted(folder: Path) -> None:
    """Rejects, samples and files of other programs keep a batch, however old it is."""
    old = [made(folder, days_ago(days)) for days in (400, 32, 31.1)]
    stays = [
        made(folder, days_ago(29)),
        made(folder, days_ago(1)),
        made(folder, days_ago(40), "row_errors/conversion_errors_0.json", "batch.json"),
        made(folder, days_ago(41), "row_error_samples.json"),
        made(folder, days_ago(42), "a note of somebody's"),
        made(folder, days_ago(43), "input_files/mine.txt"),
        made(folder, FUTURE),
    ]
    empty, without_inputs = (str(ULID.from_timestamp(days_ago(d) / 1000)) for d in (50, 51))
    (folder / empty / "input_files").mkdir(parents=True)
    (folder / without_inputs).mkdir()
    assert clean_up(folder, 30, NOW) == len(old) + 2
    assert names(folder) == sorted(stays)


@pytest.mark.parametrize(
    "name",
    [
        "notes", "2020-01-01", "01BX5ZZKBKACTAV9WEVGEMMVR", "01BX5ZZKBKACTAV9WEVGEMMVRZZ",
        "01bx5zzkbkactav9wevgemmvrz", "81BX5ZZKBKACTAV9WEVGEMMVRZ", "01BX5ZZKBKACTAV9WEVGEMMVRI",
        "01BX5ZZKBKACTAV9WEVGEMMVRZ\n", "\u06601BX5ZZKBKACTAV9WEVGEMMVRZ",
    ],
)  # fmt: skip
def test_a_folder_that_is_no_batch_stays(folder: Path, name: str) -> None:
    """A name that is no ULID is another program's, however old the folder is."""
    (folder / name).mkdir()
    made(folder, NOW)
    clean_up(folder, 0, NOW + DAY_MS)
    assert (folder / name).is_dir()


def test_links_and_files_named_like_a_batch_stay(tmp_path: Path, folder: Path) -> None:
    """A link is neither followed nor removed, and a file is not removed."""
    outside = tmp_path / "outside"
    made(outside, days_ago(50))
    first, second, third = (str(ULID.from_timestamp(days_ago(d) / 1000)) for d in (60, 61, 62))
    made(folder, NOW)
    (folder / first).symlink_to(outside / names(outside)[0])
    (folder / second).write_text("")
    (folder / third).mkdir()
    (folder / third / "input_files").symlink_to(outside / names(outside)[0] / "input_files")
    assert clean_up(folder, 0, NOW + DAY_MS) == 0
    assert len(names(folder)) == 4
    assert (outside / names(outside)[0] / "input_files" / "fileMetaData1.json").exists()


def test_only_the_first_run_of_a_day_lists_batches(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a batch of today, no batch's folder is listed."""
    old, midnight = made(folder, days_ago(40)), NOW // DAY_MS * DAY_MS
    made(folder, midnight)
    listed, plain = list[str](), os.scandir

    def scandir(path: Path) -> Iterator[os.DirEntry[str]]:
        listed.append(Path(path).name)
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for later in (0, 1, DAY_MS - 1):
        assert clean_up(folder, 30, midnight + later) == 0
    assert set(listed) == {"_batches"}
    monkeypatch.undo()
    assert old in names(folder)
    assert clean_up(folder, 30, midnight + DAY_MS) == 1
    assert old not in names(folder)


def test_a_clock_that_jumps_makes_no_batch_older(folder: Path) -> None:
    """A clock that is 400 days wrong makes no batch older."""
    for days in (1, 10, 29):
        made(folder, days_ago(days))
    everything = names(folder)
    for now in (FUTURE, NOW, NOW - 400 * DAY_MS, FUTURE + DAY_MS, NOW):
        assert clean_up(folder, 30, now) == 0
    assert names(folder) == everything
    everything = sorted([*everything, made(folder, FUTURE)])  # a run while the clock was wrong
    for now in (NOW + DAY_MS, FUTURE - DAY_MS, NOW - 20 * DAY_MS):
        assert clean_up(folder, 30, now) == 0
    assert names(folder) == everything


def test_years_of_batches_are_deleted_in_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call deletes at most MOST batches, the oldest first; the next call goes on."""
    monkeypatch.setattr(old_batches, "MOST", 2)
    made(folder, NOW)
    old = sorted(made(folder, days_ago(31 + days)) for days in range(5))
    left = []
    for _ in range(4):
        clean_up(folder, 30, NOW + DAY_MS)
        left.append([name for name in old if name in names(folder)])
    assert left == [old[2:], old[4:], [], []]


def test_keep_days_of_zero_and_of_centuries(folder: Path) -> None:
    """With 0 the newest batch alone stays; with the largest value all batches do."""
    made(folder, 1)
    newest = made(folder, NOW)
    assert clean_up(folder, 100_000, NOW + DAY_MS) == 0
    assert clean_up(folder, 0, NOW + DAY_MS) == 1
    assert names(folder) == [newest]
    assert clean_up(folder.parent / "nothing" / "_batches", 0, NOW) == 0


def test_a_run_cleans_up(tmp_path: Path) -> None:
    """The first run of a day deletes old batches, by the flow's setting; rejects stay."""
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
