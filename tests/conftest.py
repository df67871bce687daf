"""The fixtures that tests of several rooms share; a file may give one of them another meaning."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.sandbox import Sandbox
from tests.support.commands import Run, here, put, variables


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """Make fsync only check its handle: only a power cut shows more, and P2's tests count calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a table, which is not there yet."""
    return tmp_path / "table"


@pytest.fixture
def handlers() -> Iterator[None]:
    """Leave the signal handlers of this process as they were."""
    before = {
        each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.fixture
def run(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    handlers: None,
) -> Run:
    """Commands in this process, in an empty folder, with the file's sandbox in the environment."""
    sandbox.reset()
    monkeypatch.chdir(tmp_path)
    put(variables(sandbox.url), monkeypatch)
    return here(capsys)
