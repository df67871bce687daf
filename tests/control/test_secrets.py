"""Secrets in the catalog: encrypted with one key, which is created once and complete."""

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


def test_an_encrypted_document(tmp_path: Path) -> None:
    """P7: only the home's key decrypts a document, and its bytes hold none of its texts."""
    encrypted = secret_store_of(tmp_path).encrypt({"password": "hunter2"})
    assert b"hunter2" not in encrypted
    assert secret_store_of(tmp_path).decrypt(encrypted) == {"password": "hunter2"}
    other = SecretStore(Secret(Fernet.generate_key().decode()))
    with pytest.raises(InputError, match="another key"):
        other.decrypt(encrypted)


def test_the_key_of_a_home(tmp_path: Path) -> None:
    """The key's file is readable by its owner only; a key that is passed needs no file."""
    key = Secret(Fernet.generate_key().decode())
    encrypted = secret_store_of(tmp_path / "given", key).encrypt(1)
    assert not (tmp_path / "given").exists()
    assert SecretStore(key).decrypt(encrypted) == 1
    secret_store_of(tmp_path / "made").encrypt(1)
    assert (tmp_path / "made" / NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "made").iterdir()] == [NAME]


@pytest.mark.parametrize("text", ["", "hunter2", "hunter2" * 9])
def test_a_malformed_key(text: str) -> None:
    """P7: the error for a malformed key does not repeat the key."""
    with pytest.raises(InputError, match="32 bytes") as error:
        SecretStore(Secret(text))
    assert "hunter2" not in str(error.value)


def test_a_key_that_is_lost(tmp_path: Path) -> None:
    """Decrypting creates no key; encrypting does, and later stores decrypt with it."""
    store, path = secret_store_of(tmp_path), tmp_path / NAME
    encrypted = store.encrypt(1)
    key = path.read_text()
    path.unlink()
    for each in (store, secret_store_of(tmp_path)):
        with pytest.raises(InputError, match=r"cannot be read .* Bring it back"):
            each.decrypt(encrypted)
    assert not path.exists()
    again = store.encrypt(2)
    assert secret_store_of(tmp_path).decrypt(again) == 2
    with pytest.raises(InputError, match="another key"):
        store.decrypt(encrypted)
    path.write_text(key)
    assert store.decrypt(encrypted) == 1


def test_threads_make_one_key(tmp_path: Path) -> None:
    """P2: every thread returns the one key that is in the file at the end."""
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
    """No key is there afterwards: half a key, or an empty file, would stop every later start."""
    script = f"""
import os, signal
from pathlib import Path
from engine.control.secrets import secret_store_of
{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
secret_store_of(Path({str(tmp_path)!r})).encrypt(1)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / NAME).exists()
    assert secret_store_of(tmp_path).decrypt(secret_store_of(tmp_path).encrypt(1)) == 1


def test_a_key_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=f"Cannot write .*{NAME}"):
        secret_store_of(tmp_path / "file").encrypt(1)


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
