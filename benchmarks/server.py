"""Serve days of the sandbox from a cache of complete, compressed bodies, in a process of its own.

`python -m benchmarks.server '{"shape": …}'` is that process and prints its address.
"""

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from isal import isal_zlib

from benchmarks.process import ROOT, Failed
from benchmarks.shapes import invented
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME

CACHE = Path(__file__).parent / "cache"
FIRST = "2024-01-01"
PIECE = 1 << 20
LOGIN = "Basic " + b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()  # the sandbox's, public


@dataclass(frozen=True, slots=True)
class Server:
    """The address of the sandbox, and requests to it."""

    url: str

    def address(self, first: str = FIRST, last: str = FIRST) -> str:
        """Return the URL of the export of the days from `first` to `last`."""
        days = f"from_date={first}&to_date={last}"
        return f"{self.url}/api/2.0/export?project_id={PROJECT_ID}&{days}"

    def fetch(self, first: str = FIRST, last: str = FIRST, keep: Path | None = None) -> int:
        """Request these days, so that they are cached, and return their number of lines.

        `keep` is a file to write the compressed bytes to, for contenders that read files.
        """
        headers = {"Accept-Encoding": "gzip", "Authorization": LOGIN}
        lines, last_byte = 0, b"\n"
        with (
            urlopen(Request(self.address(first, last), headers=headers)) as answer,
            (keep or Path(os.devnull)).open("wb") as file,
        ):
            packed = answer.headers["Content-Encoding"] == "gzip"
            unzip = isal_zlib.decompressobj(31) if packed else None
            while chunk := answer.read(PIECE):
                file.write(chunk if packed else isal_zlib.compress(chunk, 1, 31))
                text = unzip.decompress(chunk) if unzip else chunk
                lines += text.count(b"\n")
                last_byte = text[-1:] or last_byte
        return lines + (last_byte != b"\n")


@contextmanager
def serving(shape: str, events: int, **spec: Any) -> Iterator[Server]:
    """Start the sandbox with `events` of `shape` per day; `spec` has more fields of `Spec`."""
    argument = json.dumps({"shape": shape, "events_per_day": events} | spec)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server", argument],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise Failed("the sandbox did not start; what it said stands above")
            yield Server(url)
        except URLError as error:
            raise Failed(f"the sandbox does not answer: {error.reason}") from error
        finally:
            process.terminate()


def main(argument: str) -> None:
    """Serve until SIGTERM."""
    from engine.sandbox import Project, Spec, serve
    from engine.sandbox.shapes import SHAPES, tutorial

    spec = json.loads(argument)
    extra = invented(spec["shape"])

    def many(random: Random) -> tuple[str, dict[str, Any]]:
        """Return an event of the tutorial with more properties."""
        event, properties = tutorial(random)
        values: dict[str, Any] = {
            "string": lambda: f"{random.getrandbits(48):012x}",
            "long": lambda: random.randrange(10**9),
            "boolean": lambda: random.random() < 0.5,
        }
        return event, properties | {name: values[kind]() for name, kind in extra.items()}

    SHAPES.setdefault(spec["shape"], ((many, 64),))
    CACHE.mkdir(exist_ok=True)
    project = Project(Spec(**spec), cache_dir=CACHE)
    serve(project=project, announce=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main(sys.argv[1])
