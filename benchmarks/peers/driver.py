"""What the drivers share. They run in the environments of the peers: standard library only.

Each driver is a program that takes one JSON argument: `url` (the sandbox), `username`, `password`,
`authorization` (a header made of both), `project_id`, `first` and `last` (days), `folder` (to write
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

INPUT: Any = json.loads(sys.argv[1]) if len(sys.argv) == 2 else {}
OTHERWISE = {"results": {"name": {"count": 1, "type": "string"}}}  # the properties of users
FOLDER = Path(INPUT.get("folder", "."))


def export_address() -> str:
    """Return the URL of the export."""
    days = f"from_date={INPUT['first']}&to_date={INPUT['last']}"
    return f"{INPUT['url']}/api/2.0/export?project_id={INPUT['project_id']}&{days}"


def done(rows: int) -> None:
    """Print the number of rows, as the last line."""
    print("\n" + json.dumps({"rows": rows}))


def redirect() -> None:
    """Send the export requests of `requests` to the sandbox, and no other request anywhere.

    A request for the list of properties is answered with all of them, any other with OTHERWISE.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPResponse

    send = requests.Session.send
    sandbox = urlsplit(INPUT["url"])

    def send_there(self: Any, request: Any, **options: Any) -> Any:
        parts = urlsplit(request.url)
        if parts.netloc == sandbox.netloc:
            return send(self, request, **options)
        if not parts.path.rstrip("/").endswith("/export"):
            wanted = parts.path.endswith("/events/properties/top")
            body = {name: {"count": 1} for name in INPUT["properties"]} if wanted else OTHERWISE
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
            query += f"&project_id={INPUT['project_id']}"
        there = parts._replace(scheme="http", netloc=sandbox.netloc, query=query)
        request.url = there.geturl()
        return send(self, request, **options)

    requests.Session.send = send_there  # type: ignore[method-assign]


@contextmanager
def output_into(path: Path) -> Iterator[None]:
    """Write all that is printed to a file, also by code that holds the first `sys.stdout`."""
    sys.stdout.flush()
    stdout = os.dup(1)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)


def lines_with(path: Path, mark: bytes) -> int:
    """Return how many lines of a file have `mark`."""
    with path.open("rb") as file:
        return sum(mark in line for line in file)
