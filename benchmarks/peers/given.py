"""What the drivers share. They run in the peers' own environments: standard library only.

Each driver is a program that takes one JSON argument: `url` (the sandbox), `username`, `password`,
`authorization` (the header of both), `project_id`, `first` and `last` (days), `folder` (to write
in), `columns` (a property's name, its type) and `properties` (the names of all). It prints the
number of rows as JSON on its last line.
"""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

GIVEN: Any = json.loads(sys.argv[1]) if len(sys.argv) == 2 else {}
OTHERWISE = {"results": {"name": {"count": 1, "type": "string"}}}  # users have a name
FOLDER = Path(GIVEN.get("folder", "."))


def export_address() -> str:
    """The whole export request."""
    days = f"from_date={GIVEN['first']}&to_date={GIVEN['last']}"
    return f"{GIVEN['url']}/api/2.0/export?project_id={GIVEN['project_id']}&{days}"


def done(rows: int) -> None:
    """Tell how many rows there are."""
    print("\n" + json.dumps({"rows": rows}))


def redirect() -> None:
    """Send what `requests` asks of Mixpanel's export to the sandbox, and all else nowhere.

    Asked which properties there are, it names all; to any other question OTHERWISE is the answer.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPResponse

    send = requests.Session.send
    sandbox = urlsplit(GIVEN["url"])

    def send_there(self: Any, request: Any, **options: Any) -> Any:
        parts = urlsplit(request.url)
        if parts.netloc == sandbox.netloc:
            return send(self, request, **options)
        if not parts.path.rstrip("/").endswith("/export"):
            asked = parts.path.endswith("/events/properties/top")
            body = {name: {"count": 1} for name in GIVEN["properties"]} if asked else OTHERWISE
            answer = HTTPResponse(
                io.BytesIO(json.dumps(body).encode()),
                {"Content-Type": "application/json"},
                200,
                preload_content=False,
                request_url=request.url,
            )
            return HTTPAdapter().build_response(request, answer)
        query = parts.query
        if "project_id=" not in query:
            query += f"&project_id={GIVEN['project_id']}"
        there = parts._replace(scheme="http", netloc=sandbox.netloc, query=query)
        request.url = there.geturl()
        return send(self, request, **options)

    requests.Session.send = send_there  # type: ignore[method-assign]


@contextmanager
def output_into(path: Path) -> Iterator[None]:
    """What is printed goes into a file: also by those who keep hold of the first `sys.stdout`."""
    sys.stdout.flush()
    kept = os.dup(1)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)


def lines_with(path: Path, mark: bytes) -> int:
    """How many lines of a file hold `mark`."""
    with path.open("rb") as file:
        return sum(mark in line for line in file)
