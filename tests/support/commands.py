"""The command line, in this process or in another one."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import main
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox

DAYS = ["--from-date=2024-01-01", "--to-date=2024-01-03"]


def variables(url: str) -> dict[str, str]:
    """The environment in which commands reach the sandbox at `url`."""
    return {
        "MIXPANEL_HOST": url,
        "MIXPANEL_USERNAME": USERNAME,
        "MIXPANEL_PASSWORD": PASSWORD,
        "MIXPANEL_PROJECT_ID": str(PROJECT_ID),
    }


@dataclass
class Said:
    """The exit status of a command, its stdout and its stderr."""

    status: int
    out: str
    err: str


Run = Callable[..., Said]


def here(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process."""

    def run(*words: str) -> Said:
        with pytest.raises(SystemExit) as left:
            main(words)
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Said(left.value.code, said.out, said.err)

    return run


def start(sandbox: Sandbox, folder: Path, *words: str, **more: Any) -> subprocess.Popen[str]:
    """Starts a command as a process, and a process group, of its own, at home in `folder`."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.Popen(
        [sys.executable, "-m", "engine", *words],
        env=environment(sandbox), cwd=folder, text=True, start_new_session=True, **options,
    )  # fmt: skip


def environment(sandbox: Sandbox) -> dict[str, str]:
    """This process's environment, and what reaches the sandbox."""
    root = str(Path(__file__).parents[2])
    return os.environ | variables(sandbox.url) | {"PYTHONPATH": root, "TERM": "xterm-256color"}


def children(pid: int) -> Iterator[tuple[int, str]]:
    """The processes that `pid` started and that are still alive, with their command lines."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                command = entry.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has just ended
            if parent == pid and command:
                yield int(entry.name), command


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own in `folder`, as large as `size`; only root may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nobody may mount a disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def put(variables: Mapping[str, str], patch: pytest.MonkeyPatch) -> None:
    """Make `variables` this process's, until the test is over."""
    for name, value in variables.items():
        patch.setenv(name, value)
