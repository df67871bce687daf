"""Calls that a file system lacks: pulls do without them where that is safe, or fail (P2)."""

import errno
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx
import pytest

from engine.catalog.database import Catalog
from engine.dataset.storage.local import write_once
from engine.errors import DatasetError, InputError
from engine.sandbox import Sandbox, Spec
from engine.sync import sample
from tests.support import crashes
from tests.support.crashes import Crasher
from tests.support.daemons import Trial, clock_of, until
from tests.support.pulling import flow_of, rows

pytestmark = pytest.mark.skipif(crashes.COMPILER is None, reason="there is no C compiler")

UNSUPPORTED = {"fsync-directory": errno.EINVAL, "chmod": errno.EPERM, "tmpfile": errno.EOPNOTSUPP}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crashes.compiled(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def crasher(shim: Path) -> Iterator[Crasher]:
    with Sandbox(Spec(events_per_day=20)) as sandbox, Crasher(shim, sandbox.url) as running:
        yield running


@pytest.fixture(scope="module")
def expected(crasher: Crasher, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    base = tmp_path_factory.mktemp("plain")
    crasher.run(base)
    return rows(base / "table")


@pytest.mark.parametrize(
    "lack",
    [
        {"fsync-directory": errno.EINVAL},
        {"fsync-directory": errno.ENOTSUP},
        {"fsync-directory": errno.EBADF},
        {"chmod": errno.EPERM},
        {"tmpfile": errno.EOPNOTSUPP},
        {"mmap": errno.ENODEV},
        {"renameat2": errno.EINVAL},
        UNSUPPORTED,
    ],
)
def test_what_is_done_without(
    crasher: Crasher, expected: list[str], tmp_path: Path, lack: dict[str, int]
) -> None:
    """Without these calls, pulls make the same table, also with `keep_superseded_hours`."""
    assert set(crasher.run(tmp_path, refuse=lack)["statuses"]) == {"success"}
    assert rows(tmp_path / "table") == expected
    again = {"force": True, "keep_superseded_hours": 1e-9}
    assert set(crasher.run(tmp_path, refuse=lack, options=again)["statuses"]) == {"success"}
    crasher.run(tmp_path, refuse=lack)
    assert rows(tmp_path / "table") == expected


@pytest.mark.parametrize(
    ("lack", "sentence"),
    [
        ({"link": errno.EPERM}, "its file system has no hard links"),
        ({"link": errno.EOPNOTSUPP}, "its file system has no hard links"),
        ({"flock": errno.ENOLCK}, "cannot lock files (flock: No locks available)"),
        ({"flock": errno.ENOSYS}, "cannot lock files (flock: Function not implemented)"),
        ({"flock": errno.EOPNOTSUPP}, "cannot lock files (flock: Operation not supported)"),
        ({"fcntl": errno.ENOLCK}, "cannot lock files (lockf: No locks available)"),
        ({"rename": errno.EXDEV}, "a mount, or a link to another file system"),
    ],
)
def test_what_is_named(
    crasher: Crasher, tmp_path: Path, lack: dict[str, int], sentence: str
) -> None:
    """Without this call no commit is made, and the error names it."""
    failed = crasher.run(tmp_path, refuse=lack)
    assert sentence in failed["error"]
    assert set(failed["statuses"]) <= {"failed"}
    assert set(crasher.run(tmp_path)["statuses"]) == {"success"}


def test_check_names_it_before_a_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` names what a table would lack, and leaves no file."""
    place = flow_of("https://data.mixpanel.com", tmp_path / "table")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    sample.check_table(place, None)
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(DatasetError, match="no hard links"):
        sample.check_table(place, None)
    assert not any(tmp_path.iterdir())


def test_a_secret_made_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many processes that make it at once, all get what one has written, for its owner alone."""
    together = Barrier(8)

    def refuse(*_: object) -> None:
        together.wait()
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "home" / "api.token"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda number: write_once(path, f"token {number}"), range(8)))
    assert found == {path.read_text()}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["api.token"]


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may write there, but not list it, cannot sync its entries, and goes on."""
    plain = os.open

    def refuse(path: Path, flags: int, *rest: int) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return plain(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    assert write_once(tmp_path / "home" / "secrets.key", "key") == "key"


def test_a_catalog_without_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new catalog does without, and opens with shared memory as soon as there is some."""
    monkeypatch.setattr("engine.catalog.database.can_share_memory", lambda _: False)
    for _ in range(2):
        with Catalog(tmp_path / "new") as catalog:
            assert catalog.acquire("p", 1000, lambda _: 0) == 0
    assert not list((tmp_path / "new").glob("*-wal"))
    monkeypatch.undo()
    for _ in range(2):
        with Catalog(tmp_path / "new") as catalog:
            assert catalog.recent_requests("p", 1000) == [1000, 1000]


def test_a_catalog_that_needs_shared_memory(shim: Path, tmp_path: Path) -> None:
    """One made with shared memory and moved to a disk without: a sentence with a way out."""
    with Catalog(tmp_path / "home"):
        pass
    with Crasher(shim, "http://127.0.0.1:9") as crasher:
        said = crasher.run(tmp_path, refuse={"mmap": errno.ENODEV})
    assert "was made on another file system" in said["error"]
    assert InputError.__name__ == said["kind"]


def test_the_daemon_with_its_control_plane(
    shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon starts, makes its token, and responds on a disk that lacks these calls."""
    clock = clock_of(3600)
    lacks = {**UNSUPPORTED, "link": errno.EPERM}
    with Sandbox(Spec(events_per_day=20), now=clock.now) as sandbox:
        tried = Trial(tmp_path, sandbox, clock)
        tried.config.write_text(f'home = "{tried.home}"\n[api]\nlisten = "127.0.0.1:0"\n')
        monkeypatch.setenv("LD_PRELOAD", str(shim))
        monkeypatch.setenv("SHIM_BELOW", str(tmp_path))
        refused = ",".join(f"{kind}={error}" for kind, error in lacks.items())
        monkeypatch.setenv("SHIM_REFUSE", refused)
        with tried.daemon() as process:
            until(lambda: tried.lines("listening"))
            address = tried.lines("listening")[-1]["address"]
            token = (tried.home / "api.token").read_text()
            assert httpx.get(f"{address}/readyz", headers={"x-api-key": token}).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
