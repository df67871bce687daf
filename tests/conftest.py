"""The fixtures that tests of several rooms share; a file may give one of them another meaning."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.sandbox import Sandbox
from tests.support.commands import Run, here, put, variables


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
