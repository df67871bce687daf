"""Inject faults into responses: a fault is a name and a few arguments.

Pure: it changes a response's lines and decides how the response ends; the endpoint sends it.

    answer      another response: status, body (text) or body_base64, headers
    cut         the body stops at `at`: where (inside_line, after_line, before_newline); append a
                text there; end (clean, gzip_cut, close, reset, stall)
    insert      a line of its own at `at`: text or line (base64; from Python: bytes)
    long_line   a valid event of `mib` MiB at `at`, its `time` as given
    bomb        a line of `mib` MiB of one `letter` at `at`, which compresses to almost nothing
    gzip_crc    a wrong checksum at the end of the gzip stream
    trickle     pieces of `bytes` bytes, `seconds` apart
    delay       no byte for `seconds`

`at` is a fraction of the body's lines, or `lines` a number of them. Each fault meets the next
`times` requests (null: all), of those that ask for `day` if it is given. A request meets one.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

MIB = 1 << 20
PLACE = {"at": 0.5, "lines": None}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "answer": {"status": 500, "body": None, "body_base64": None, "headers": {}},
    "cut": PLACE | {"where": "inside_line", "append": "", "end": "clean"},
    "insert": PLACE | {"text": "not a record", "line": None},
    "long_line": PLACE | {"mib": 20, "time": 0},
    "bomb": PLACE | {"mib": 256, "letter": "a"},
    "gzip_crc": {},
    "trickle": {"bytes": 7, "seconds": 0.001},
    "delay": {"seconds": 1.0},
}
CHOICES = {
    "where": ("inside_line", "after_line", "before_newline"),
    "end": ("clean", "gzip_cut", "close", "reset", "stall"),
}
HTML = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"
LIMITED = (
    '{"code":429,"error":"Project exceeded rate limits. Please retry the request with '
    'exponential backoff.","status":"Too Many Requests"}'
)
BODIES = {
    200: ("text/html", HTML.format("Log in")),
    400: ("text/plain", "Unable to authenticate request\n"),
    402: ("application/json", '{"request":"/api/2.0/export","error":"Payment required"}'),
    403: ("application/json", '{"request":"/api/2.0/export","error":"Permission denied"}'),
    404: ("text/plain", "Not Found\n"),
    429: ("application/json", LIMITED),
    500: ("text/plain", "error completing export request\n"),
    502: ("text/html", HTML.format("502 Bad Gateway")),
    503: ("text/plain", "upstream connect error\n"),
}


@dataclass
class Fault:
    """One fault; `times` counts down as requests meet it."""

    name: str
    args: dict[str, Any]
    times: int | None = 1
    day: date | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> "Fault":
        """Read a fault from a JSON object; ValueError names the mistake."""
        args = dict(given)
        name, times, day = args.pop("fault", None), args.pop("times", 1), args.pop("day", None)
        if name not in ARGUMENTS:
            raise ValueError(f"fault {name!r} is none of {', '.join(ARGUMENTS)}")
        for key, value in args.items():
            if key not in ARGUMENTS[name]:
                allowed = ", ".join(["times", "day", *ARGUMENTS[name]])
                raise ValueError(f"{name} has no argument {key!r}, only {allowed}")
            if key in CHOICES and value not in CHOICES[key]:
                raise ValueError(f"{key} {value!r} is none of {', '.join(CHOICES[key])}")
        return cls(name, ARGUMENTS[name] | args, times, date.fromisoformat(day) if day else None)

    def meets(self, first: date, last: date) -> bool:
        """Whether a request for the days `first` to `last` meets this fault."""
        return self.times != 0 and (self.day is None or first <= self.day <= last)

    @property
    def end(self) -> str:
        """How the response ends, one of CHOICES["end"]."""
        return str(self.args.get("end", "clean"))

    @property
    def line_place(self) -> bool:
        """Whether the fault changes the body at a certain line."""
        return "at" in self.args

    def body(self) -> tuple[int, str, bytes]:
        """Status, content type and body of an `answer`."""
        status = self.args["status"]
        content_type, body = BODIES.get(status, ("text/plain", ""))
        if self.args["body_base64"] is not None:
            return status, "text/plain", base64.b64decode(self.args["body_base64"])
        if self.args["body"] is not None:
            body = self.args["body"]
            content_type = "application/json" if body[:1] == "{" and status != 200 else "text/plain"
        return status, content_type, body.encode()

    def apply(self, blocks: Iterator[bytes], total_lines: int) -> Iterator[bytes]:
        """The body with this fault in it; each of `blocks` ends with a line."""
        if not self.line_place:
            return blocks
        lines = self.args["lines"]
        before = int(self.args["at"] * total_lines) if lines is None else int(lines)
        if self.name == "cut":
            if self.args["where"] == "inside_line":
                before = min(before, total_lines - 1)
            return cut(blocks, before, self.args["where"], self.args["append"].encode())
        return insert(blocks, before, self.inserted())

    def inserted(self) -> Iterator[bytes]:
        """The line that `insert`, `long_line` or `bomb` adds, in blocks."""
        if self.name == "insert":
            line = self.args["line"]
            if line is None:
                yield self.args["text"].encode()
            else:
                yield line if isinstance(line, bytes) else base64.b64decode(line)
        else:
            letter = self.args.get("letter", "x").encode()
            if self.name == "long_line":
                yield b'{"event":"Long","properties":{"time":%d,"text":"' % self.args["time"]
            for _ in range(self.args["mib"]):
                yield letter * MIB
            if self.name == "long_line":
                yield b'"}}'
        yield b"\n"


def parted(blocks: Iterator[bytes], before: int) -> Iterator[tuple[bytes, bool]]:
    """The blocks, split after the first `before` lines; each with whether it is part of these."""
    for block in blocks:
        lines = block.count(b"\n")
        if lines <= before or before <= 0:
            yield block, before > 0
            before -= lines
            continue
        at = 0
        for _ in range(before):
            at = block.index(b"\n", at) + 1
        yield block[:at], True
        yield block[at:], False
        before = 0


def insert(blocks: Iterator[bytes], before: int, line: Iterator[bytes]) -> Iterator[bytes]:
    """The body with `line` after the first `before` lines."""
    for block, stands_before in parted(blocks, before):
        if not stands_before:
            yield from line  # only once: it is exhausted then
        yield block
    yield from line


def cut(blocks: Iterator[bytes], before: int, where: str, append: bytes) -> Iterator[bytes]:
    """The first `before` lines, half a line more or a newline less, and then `append`."""
    held = b""
    for block, stands_before in parted(blocks, before):
        if stands_before:
            yield held
            held = block
        elif where == "inside_line":
            held += block[: max(block.index(b"\n") // 2, 1)]
        if not stands_before:
            break
    if where == "before_newline":
        held = held.removesuffix(b"\n")
    yield held + append
