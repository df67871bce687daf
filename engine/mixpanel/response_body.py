"""The body of a response: decompressed, and whole or an error (P1)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Any

from isal import igzip_lib

from engine.errors import Truncated, Unavailable
from engine.mixpanel.responses import answered_at, clean, is_page, quote, sentence
from engine.model.flow import Connection

PIECE = 1 << 20  # bytes; the size of a decompressed piece
GATHERED = 1 << 18  # bytes on the wire that are decompressed together
GZIP = ("gzip", "x-gzip")


class Response:
    """A response in transfer: iterate over it, once, for its decompressed body.

    A piece has about PIECE bytes. `received` counts the body's bytes on the wire. `answered_at` is
    the server's clock by its `Date` header, in ms since the epoch; None without a readable one.
    `waiting` is entered around each wait for the network; `response` is httpx's.
    """

    def __init__(
        self,
        response: Any,
        connection: Connection,
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.status = response.status_code
        self.answered_at = answered_at(response.headers)
        self.received, self._started = 0, False
        self.encoding = response.headers.get("content-encoding", "identity").strip().lower()
        self._response, self._connection, self._waiting = response, connection, waiting

    def __iter__(self) -> Iterator[bytes]:
        """Yield the decompressed body; raise Truncated unless it ends cleanly (P1)."""
        for piece in _joined(self._body(), PIECE):
            yield self._checked(piece)

    def _checked(self, piece: bytes) -> bytes:
        """Return `piece`; raise Unavailable if the body starts with an HTML page."""
        page = "text/html" in self._response.headers.get("content-type", "").lower()
        if self.status == HTTPStatus.OK and not self._started and (page or is_page(piece)):
            said = quote(sentence(piece), self._connection)
            raise Unavailable(
                f"{self._connection.host} answered with an HTML page instead of events"
                + (f": {said}" if said else ".")
            )
        self._started = True
        return piece

    def _body(self) -> Iterator[bytes]:
        headers, encoding = self._response.headers, self.encoding
        if encoding in GZIP:
            yield from gunzip(self.received_chunks())
        elif encoding == "identity":
            framed = "content-length" in headers or "transfer-encoding" in headers
            if self.status == HTTPStatus.OK and not framed:  # P1
                raise Truncated(
                    f"{self._connection.host} answered without length, chunks or compression, so"
                    " nothing tells a whole answer from half of one: check the proxy in between."
                )
            yield from self.received_chunks()
        else:
            raise Unavailable(
                f"{self._connection.host} answered in an encoding that nobody asked for:"
                f" {clean(encoding, self._connection)}"
            )

    def received_chunks(self) -> Iterator[bytes]:
        """Yield the body as it is on the wire."""
        chunks = self._response.iter_raw()
        while True:
            with self._waiting():
                chunk = next(chunks, None)
            if chunk is None:
                return
            self.received += len(chunk)
            yield chunk


def gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress the gzip members in `chunks`, PIECE bytes at a time: a bomb cannot fill memory.

    Raises Truncated unless the last member ends, checksum and length included, and nothing else
    follows it (P1).
    """
    member: Any = None
    ended = False
    for chunk in _joined(chunks, GATHERED):
        data = chunk
        while data or not (ended or member is None or member.needs_input):
            if member is None or ended:
                member, ended = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), False
            try:
                piece = member.decompress(data, PIECE)
            except igzip_lib.error as error:  # type: ignore[misc]  # its stubs declare an instance
                # A damaged byte, a wrong checksum, or something else after the end
                raise Truncated(f"The gzip stream of the response is damaged ({error}).") from error
            if piece:
                yield piece
            ended = member.eof
            data = member.unused_data if ended else b""
    if not ended:
        raise Truncated("The response is not whole: its gzip stream breaks off before its end.")


def _joined(chunks: Iterator[bytes], least: int) -> Iterator[bytes]:
    """Join chunks to pieces of `least` bytes or more: fewer pieces, less waiting of threads."""
    pieces, size = list[bytes](), 0
    for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size >= least:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)
