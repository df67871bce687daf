"""Secrets at rest: sealed with one key, that is made once and whole."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from engine.control.secrets import NAME, SecretStore, secret_store_of
from engine.dataset.storage.local import holder, lock_file, write_once
from engine.errors import DatasetError, InputError
from engine.model.flow import Secret

ROOT = Path(__file__).parents[2]


def test_what_is_sealed(tmp_path: Path) -> None:
    """Only the key of the home opens it, and nothing of it is to be seen."""
    sealed = secret_store_of(tmp_path).seal({"password": "hunter2"})
    assert b"hunter2" not in sealed
    assert secret_store_of(tmp_path).open(sealed) == {"password": "hunter2"}
    other = SecretStore(Secret(Fernet.generate_key().decode()))
    with pytest.raises(InputError, match="another key"):
        other.open(sealed)


def test_the_key_of_a_home(tmp_path: Path) -> None:
    """In a file of its owner's alone; one that is given is used, and none is made then."""
    key = Secret(Fernet.generate_key().decode())
    sealed = secret_store_of(tmp_path / "given", key).seal(1)
    assert not (tmp_path / "given").exists()
    assert SecretStore(key).open(sealed) == 1
    secret_store_of(tmp_path / "made").seal(1)
    assert (tmp_path / "made" / NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "made").iterdir()] == [NAME]


@pytest.mark.parametrize("text", ["", "hunter2", "hunter2" * 9])
def test_what_is_no_key(text: str) -> None:
    """It is told without the text."""
    with pytest.raises(InputError, match="32 bytes") as error:
        SecretStore(Secret(text))
    assert "hunter2" not in str(error.value)


def test_a_key_that_is_lost(tmp_path: Path) -> None:
    """To look makes no new one; what is sealed again then is opened again, by whoever runs."""
    vault, path = secret_store_of(tmp_path), tmp_path / NAME
    sealed = vault.seal(1)
    key = path.read_text()
    path.unlink()
    for each in (vault, secret_store_of(tmp_path)):
        with pytest.raises(InputError, match=r"cannot be read .* Bring it back"):
            each.open(sealed)
    assert not path.exists()
    again = vault.seal(2)
    assert secret_store_of(tmp_path).open(again) == 2
    with pytest.raises(InputError, match="another key"):
        vault.open(sealed)
    path.write_text(key)
    assert vault.open(sealed) == 1


def test_made_by_many_at_once(tmp_path: Path) -> None:
    """All of them have the one that is there in the end."""
    for turn in range(20):
        path, start = tmp_path / str(turn), threading.Barrier(8)
        got: list[str] = []

        def make(path: Path = path, start: threading.Barrier = start) -> None:
            start.wait()
            got.append(write_once(path, str(threading.get_ident())))  # noqa: B023

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(got) == {path.read_text()}


@pytest.mark.parametrize("moment", ["os.fsync", "os.link"])
def test_killed_while_it_is_made(tmp_path: Path, moment: str) -> None:
    """There is no key then: half of one, or an empty one, would lock everybody out."""
    script = f"""
import os, signal
from pathlib import Path
from engine.control.secrets import secret_store_of
{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
secret_store_of(Path({str(tmp_path)!r})).seal(1)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / NAME).exists()
    assert secret_store_of(tmp_path).open(secret_store_of(tmp_path).seal(1)) == 1


def test_where_none_can_be_made(tmp_path: Path) -> None:
    """It is said which file cannot be written."""
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=f"Cannot write .*{NAME}"):
        secret_store_of(tmp_path / "file").seal(1)


def test_who_holds_a_lock(tmp_path: Path) -> None:
    """Whoever took it, for as long as it is open; a file that names a process holds nothing."""
    path = tmp_path / "lock"
    assert holder(path) is None
    path.write_text("1")
    assert holder(path) is None
    with path.open("a+") as lock:
        assert lock_file(lock) == ""
        assert holder(path) == os.getpid()
    assert holder(path) is None
