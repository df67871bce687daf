"""Answer export requests as a Starlette application, with control endpoints beside.

It knows nothing about ports, threads and signals.
"""

import asyncio
import base64
import hashlib
import itertools
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

from isal import isal_zlib
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from engine.sandbox.events import HOUR_MS, Spec, variants
from engine.sandbox.faults import BODIES, Fault
from engine.sandbox.query import BadQuery, Query

USERNAME = "sandbox.demo.mp-service-account"
PASSWORD = "sandbox-password"  # noqa: S105  the sandbox's own, public
PROJECT_ID = 2384945
GZIP_ABOVE = 1400  # bytes; smaller bodies are plain even if the client accepts gzip
BLOCK = 1 << 18
ABOUT = """This is the sandbox of mixpanel-etl, NOT Mixpanel: invented events, made on this machine.

GET    /api/2.0/export     as documented for Mixpanel's raw export endpoint
POST   /control/faults     a list of {"fault": name, "times": N, ...}; DELETE takes all away
GET    /control/requests   the export requests so far
POST   /control/clock      {"now_ms": N}, or null for the time of day
"""


def wall_clock() -> int:
    """Now, in ms since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass
class Project:
    """The sandbox's project: its events, limits and faults, and the requests that it received.

    now                      the clock, in ms since the epoch
    per_hour, per_second     requests allowed; None: no limit. Mixpanel allows 60 and 3
    cache_dir                folder of finished bodies, which are served from disk the next time
    clock_ms                 the moment at which the clock stands still; None: it runs
    dated                    whether responses have a `Date`, by the project's clock
    """

    spec: Spec = field(default_factory=Spec)
    now: Callable[[], int] = wall_clock
    per_hour: int | None = None
    per_second: int | None = None
    cache_dir: Path | None = None
    clock_ms: int | None = None
    dated: bool = True
    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    request_times: list[int] = field(default_factory=list)

    @property
    def now_ms(self) -> int:
        """Now, by the project's clock."""
        return self.now() if self.clock_ms is None else self.clock_ms

    def wait_ms(self) -> int:
        """Ms until the rate limits allow a request; 0 allows one now, and counts it."""
        now = self.now_ms
        self.request_times = [at for at in self.request_times if now - HOUR_MS < at <= now]
        for most, span in ((self.per_hour, HOUR_MS), (self.per_second, 1000)):
            recent = [at for at in self.request_times if at > now - span]
            if most is not None and len(recent) >= most:
                return recent[-most] + span - now
        self.request_times.append(now)
        return 0

    def fault_for(self, query: Query) -> Fault | None:
        """The fault that `query` meets, if any; its `times` are counted down."""
        for fault in self.faults:
            if fault.meets(query.first, query.last):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    async def export(self, request: Request) -> Response:
        """GET /api/2.0/export."""
        requests = self.requests
        entry: dict[str, Any] = {"params": dict(request.query_params), "time": self.now_ms}
        response = await self.answer(request, entry)
        if self.dated and "date" not in response.headers:
            response.headers["date"] = formatdate(entry["time"] / 1000, usegmt=True)
        requests.append(entry | {"status": response.status_code})
        return response

    async def answer(self, request: Request, entry: dict[str, Any]) -> Response:
        """The response to an export request; the fault's name goes into `entry`."""
        if not authorized(request.headers.get("authorization", "")):
            return PlainTextResponse(BODIES[400][1], 400)
        now = self.now_ms
        today = datetime.fromtimestamp(now / 1000, self.spec.zone).date()
        try:
            query = Query.parse(request.query_params, PROJECT_ID, today)
        except BadQuery as error:
            if error.as_json:
                target = f"{request.url.path}?{request.url.query}"
                return JSONResponse({"request": target, "error": str(error)}, 400)
            return PlainTextResponse(f"{error}\n", 400)
        if wait := self.wait_ms():
            seconds = {"Retry-After": str(-(-wait // 1000))}
            return Response(BODIES[429][1], 429, seconds, BODIES[429][0])
        fault = self.fault_for(query)
        entry["fault"] = fault.name if fault else None
        if fault and fault.name == "delay":
            await asyncio.sleep(fault.args["seconds"])
        if fault and fault.name == "answer":
            status, content_type, content = fault.body()
            return Response(content, status, {"content-type": content_type} | fault.args["headers"])
        return await self.stream(request, query, fault, now)

    async def stream(
        self, request: Request, query: Query, fault: Fault | None, now: int
    ) -> Response:
        """The response that streams the events of `query`."""
        gzip = "gzip" in request.headers.get("accept-encoding", "")
        blocks = query.blocks(self.spec, now)
        if fault and fault.line_place:
            counted = query.blocks(self.spec, now)  # again: `blocks` is an iterator
            total = await asyncio.to_thread(lambda: sum(block.count(b"\n") for block in counted))
            blocks = fault.apply(blocks, total)
        ends = query.last.toordinal() % 2 == 0 or (fault is not None and fault.line_place)
        body = ragged(blocks, last_newline=ends)
        begin = list(itertools.islice(body, 2))
        gzip = gzip and (fault is not None or sum(map(len, begin)) > GZIP_ABOVE)
        body = itertools.chain(begin, body)
        if self.cache_dir and not fault and query.whole and self.spec.settled_ms(query.last) <= now:
            path = self.cached(self.cache_dir, query, gzip=gzip)
            if not path.exists():
                await asyncio.to_thread(write, path, zipped(body) if gzip else body)
            body = read(path)
        elif gzip:
            body = zipped(body, fault)
        transport: asyncio.Transport = request.state.transport
        headers = {"content-type": "text/plain"} | ({"content-encoding": "gzip"} if gzip else {})
        return StreamingResponse(send(body, fault, transport), headers=headers)

    def cached(self, folder: Path, query: Query, *, gzip: bool) -> Path:
        """The path of the cached body of `query`."""
        known = variants(self.spec.seed, self.spec.shape)
        key = hashlib.sha256(repr((self.spec, query.in_ms, known.lines)).encode()).hexdigest()[:16]
        return folder / key / f"{query.first}_{query.last}.jsonl{'.gz' if gzip else ''}"

    async def add_faults(self, request: Request) -> Response:
        """POST /control/faults."""
        try:
            given = json.loads(await request.body())
            parsed = list(map(Fault.parse, given if isinstance(given, list) else [given]))
        except (ValueError, TypeError) as error:
            return PlainTextResponse(f"{error}\n", 400)
        self.faults.extend(parsed)
        return JSONResponse({"faults": len(self.faults)})

    async def clear_faults(self, _: Request) -> Response:
        """DELETE /control/faults."""
        self.faults.clear()
        return JSONResponse({"faults": 0})

    async def show_requests(self, _: Request) -> Response:
        """GET /control/requests."""
        return JSONResponse(self.requests)

    async def set_clock(self, request: Request) -> Response:
        """POST /control/clock."""
        try:
            now_ms = json.loads(await request.body())["now_ms"]
        except (ValueError, TypeError, KeyError):
            return PlainTextResponse('wanted: {"now_ms": a number or null}\n', 400)
        self.clock_ms = now_ms
        return JSONResponse({"now_ms": self.now_ms})

    def application(self) -> Starlette:
        """The Starlette application with all routes."""
        return Starlette(
            routes=[
                Route("/", lambda _: PlainTextResponse(ABOUT)),
                Route("/api/2.0/export", self.export),
                Route("/api/2.0/export/", self.export),
                Route("/control/faults", self.add_faults, methods=["POST"]),
                Route("/control/faults", self.clear_faults, methods=["DELETE"]),
                Route("/control/requests", self.show_requests),
                Route("/control/clock", self.set_clock, methods=["POST"]),
            ]
        )


def authorized(header: str) -> bool:
    """Whether an Authorization header names the sandbox's service account."""
    return header == "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


def ragged(blocks: Iterator[bytes], *, last_newline: bool) -> Iterator[bytes]:
    """The same bytes in blocks that do not end with lines; the last newline is optional."""
    held = b""
    for block in blocks:
        held += block
        at = max(len(held) - 1 - len(held) % 89, 0)
        if at:
            yield held[:at]
        held = held[at:]
    held = held if last_newline else held.removesuffix(b"\n")
    if held:
        yield held


def zipped(body: Iterator[bytes], fault: Fault | None = None) -> Iterator[bytes]:
    """The body as one gzip stream: whole, with a wrong checksum, or without its trailer."""
    packer = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    yield from filter(None, map(packer.compress, body))
    if fault and fault.end != "clean":
        yield packer.flush(isal_zlib.Z_SYNC_FLUSH)
        return
    tail = packer.flush()
    if fault and fault.name == "gzip_crc":
        tail = tail[:-8] + bytes([tail[-8] ^ 1]) + tail[-7:]
    yield tail


def write(path: Path, body: Iterator[bytes]) -> None:
    """Write the body to `path`, which appears when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{time.monotonic_ns()}")
    with unfinished.open("wb") as file:
        file.writelines(body)
    unfinished.rename(path)


def read(path: Path) -> Iterator[bytes]:
    """The content of a file in blocks."""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


async def send(
    body: Iterator[bytes], fault: Fault | None, transport: asyncio.Transport
) -> AsyncIterator[bytes]:
    """Send the body at the pace of `fault`, and end the response as `fault` says."""
    trickle = fault.args if fault and fault.name == "trickle" else {}
    for block in body:
        size = trickle.get("bytes", len(block))
        for at in range(0, len(block), size):
            yield block[at : at + size]
            await asyncio.sleep(trickle.get("seconds", 0))  # let other requests go on
    end = fault.end if fault else "clean"
    if end in ("clean", "gzip_cut"):
        return
    while transport.get_write_buffer_size():
        await asyncio.sleep(0.001)
    if end == "reset":
        reset = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.get_extra_info("socket").setsockopt(*reset)  # the close sends a TCP RST
        transport.abort()
    elif end == "close":
        transport.close()
    await asyncio.Event().wait()  # until the client is gone or the server stops
