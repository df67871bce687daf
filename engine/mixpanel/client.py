"""Window -> the bytes of Mixpanel's answer, decompressed and whole, or an error of ours.

The only importer of httpx: its exceptions end here. It knows neither lines nor events.

Requests go through httpx's transport and not its client, which would read more of the environment
than we do, follow what a server says, and parse cookies with regular expressions that backtrack.
"""

import base64
import ipaddress
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi
import httpx
from isal import igzip_lib, isal_zlib
from socksio.exceptions import SOCKSError

from engine import __version__
from engine.errors import InputError, Refused, RetryableError, Truncated, Unavailable
from engine.mixpanel.proxies import Proxy, certificates, proxy_for
from engine.mixpanel.responses import answered_at, clean, is_page, quote, sentence, verdict
from engine.model.flow import Connection
from engine.model.window import Window

ENDPOINT = "/api/2.0/export"
MOST_EVENTS = 100_000  # Mixpanel: the value of `limit` cannot be over 100000
PIECE = 1 << 20  # bytes; what is handed on at a time, and decompressed at a time
GATHERED = 1 << 18  # bytes on the wire that are decompressed together
ERROR_BODY = 1 << 16  # bytes of an error's body that are read
ERROR_SECONDS = 30  # for which an error's body is awaited: its status says enough
LONGEST_LOCATION = 1 << 13  # characters of an address to which a server may redirect
GZIP = ("gzip", "x-gzip")
REDIRECTS = 5
HOST_NAME = re.compile(r"(?:[\w-]{1,63}\.)*[\w-]{1,63}\.?|[0-9a-f:.]+")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that Mixpanel may take. It computes for minutes before anything comes.

    connect     to a connection, with TLS
    first_byte  to the head of the answer, and from there to the first byte of its body
    idle        from byte to byte, from then on
    total       for the whole
    """

    connect: float = 30
    first_byte: float = 20 * 60
    idle: float = 5 * 60
    total: float = 6 * 3600


DEFAULT_TIMEOUTS = Timeouts()


def params(
    connection: Connection,
    window: Window,
    events: Sequence[str] = (),
    where: str | None = None,
    limit: int | None = None,
) -> dict[str, str]:
    """The query of the request. An arrival window becomes a `where` of its own, beside yours."""
    query = {
        "from_date": window.from_date.isoformat(),
        "to_date": window.to_date.isoformat(),
        "project_id": str(connection.project_id),
    }
    if events:
        query["event"] = json.dumps(list(events), ensure_ascii=False)
    clauses = [where] if where else []
    if window.arrival:
        arrived = 'number(properties["mp_processing_time_ms"])'
        start, end = window.requested or window.arrival
        clauses.insert(0, f"{arrived} >= {start} and {arrived} < {end}")
    if clauses:
        query["where"] = clauses[0] if len(clauses) == 1 else f"({clauses[0]}) and ({clauses[1]})"
    if limit is not None:
        if not 1 <= limit <= MOST_EVENTS:
            raise InputError(f"limit is {limit}: Mixpanel takes 1 to {MOST_EVENTS:,}.")
        query["limit"] = str(limit)
    return query


def url(
    connection: Connection,
    window: Window,
    events: Sequence[str] = (),
    where: str | None = None,
    limit: int | None = None,
) -> str:
    """The request as one can print it: it holds no credentials (P7)."""
    query = params(connection, window, events, where, limit)
    try:
        return str(httpx.URL(_endpoint(connection), params=query))
    except httpx.InvalidURL:  # it has more than 64 KiB
        raise InputError(
            "The events and the filter make a request that is too long for an address. "
            "Ask for fewer events, or with a shorter filter."
        ) from None


def _endpoint(connection: Connection) -> str:
    """The address to ask. Basic credentials go over TLS, or to this machine itself (P7)."""
    name = f"The host of connection {connection.name!r} (or MIXPANEL_HOST)"
    try:
        host = httpx.URL(connection.host)
    except httpx.InvalidURL:
        raise InputError(f"{name} is no address; write https://data.mixpanel.com.") from None
    if host.userinfo or host.query or host.fragment:
        raise InputError(f"{name} must be the address alone, as in https://data.mixpanel.com.")
    name_of_host = HOST_NAME.fullmatch(host.raw_host.decode())
    if host.scheme not in ("https", "http") or not name_of_host or (host.port or 0) > 65_535:
        raise InputError(f"{name} must be an address such as https://data.mixpanel.com.")
    if host.scheme == "http" and not _is_loopback(host):
        raise InputError(f"{name} must begin with https://: http shows the password to everybody.")
    return str(host.copy_with(path=host.path.rstrip("/").removesuffix(ENDPOINT) + ENDPOINT))


def _is_loopback(address: httpx.URL) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(address.host).is_loopback
    return address.host == "localhost"


class Response:
    """An answer on its way: iterate over it, once, for its decompressed body.

    A piece has about PIECE bytes. `received` counts those of the body on the wire. `answered_at`
    is the server's own clock, in ms since the epoch; None where it does not say.
    """

    def __init__(self, response: httpx.Response, connection: Connection, watch: "_Watch") -> None:
        self.status = response.status_code
        self.answered_at = answered_at(response.headers)
        self.received = 0
        self.encoding = response.headers.get("content-encoding", "identity").strip().lower()
        self._begun = False
        self._response = response
        self._connection = connection
        self._watch = watch

    def __iter__(self) -> Iterator[bytes]:
        """The decompressed body; Truncated unless it ends as it should (P1)."""
        gathered: list[bytes] = []
        size = 0
        for piece in self._body():
            gathered.append(piece)
            size += len(piece)
            if size >= PIECE:
                yield self._events(b"".join(gathered))
                gathered, size = [], 0
        if gathered:
            yield self._events(b"".join(gathered))

    def _events(self, piece: bytes) -> bytes:
        """`piece`, unless it begins a page where there should be events."""
        page = "text/html" in self._response.headers.get("content-type", "").lower()
        if self.status == httpx.codes.OK and not self._begun and (page or is_page(piece)):
            said = quote(sentence(piece), self._connection)
            raise Unavailable(
                f"{self._connection.host} answered with an HTML page instead of events"
                + (f": {said}" if said else ".")
            )
        self._begun = True
        return piece

    def _body(self) -> Iterator[bytes]:
        """The decompressed body as it comes, in pieces of any size, whatever it holds."""
        headers, encoding = self._response.headers, self.encoding
        if encoding in GZIP:
            yield from _gunzipped(self.received_chunks())
        elif encoding == "identity":
            framed = "content-length" in headers or "transfer-encoding" in headers
            if self.status == httpx.codes.OK and not framed:  # P1
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
        """The body as it comes from the wire."""
        chunks = self._response.iter_raw()
        while True:
            with self._watch.waiting(in_body=True):
                chunk = next(chunks, None)
            if chunk is None:
                return
            self.received += len(chunk)
            yield chunk


@contextmanager
def stream(
    connection: Connection,
    window: Window,
    *,
    events: Sequence[str] = (),
    where: str | None = None,
    limit: int | None = None,
    limits: Timeouts = DEFAULT_TIMEOUTS,
    stopped: Callable[[], bool] = lambda: False,
    now: Callable[[], float] = time.time,
) -> Iterator[Response]:
    """The answer to one request; leaving the `with` early closes the connection at once (P8).

    `stopped` is asked about twice a second, from another thread, while the network is awaited:
    once it is true, the wait ends with Unavailable. `now`: seconds since the epoch.
    Raises, here or while the body is read: InputError; Refused, RateLimited, Unavailable; Truncated
    for a body that is not whole (P1).
    """
    address = url(connection, window, events, where, limit)
    # Credentials in clear go to this machine itself, so not through a proxy of the environment.
    proxy = proxy_for(address, os.environ) if address.startswith("https:") else None
    with (
        _transport(address, proxy) as transport,
        _Watch(connection, limits, stopped, proxy) as watch,
        closing(_answer(transport, connection, address, limits, watch)) as response,
    ):
        answered = Response(response, connection, watch)
        if answered.status != httpx.codes.OK:
            body = _start(answered, watch) if answered.status >= httpx.codes.BAD_REQUEST else b""
            raise verdict(answered.status, response.headers, body, connection, now())
        yield answered


def _transport(address: str, proxy: Proxy | None) -> httpx.HTTPTransport:
    """What makes the connection. All that it takes from the environment is handed to it."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unlike Python's default, it logs no keys (P7)
    if address.startswith("https:"):
        _trust(tls, certificates(os.environ))
    through = None
    if proxy:
        # Only a proxy that speaks TLS itself may be given a context for that.
        inner = tls if proxy.url.startswith("https:") else None
        through = httpx.Proxy(proxy.url, auth=proxy.auth, ssl_context=inner)
    return httpx.HTTPTransport(verify=tls, proxy=through, trust_env=False)


def _trust(tls: ssl.SSLContext, named: Mapping[str, str]) -> None:
    """Load the certificates that variables of the environment name, or else those of certifi."""
    if not named:
        tls.load_verify_locations(certifi.where())
    for variable, path in named.items():
        try:
            if variable == "SSL_CERT_FILE":
                tls.load_verify_locations(cafile=path)
            elif any(Path(folder).is_dir() for folder in path.split(os.pathsep)):
                tls.load_verify_locations(capath=path)
            else:
                raise NotADirectoryError
        except (OSError, ValueError):
            kind = "file" if variable == "SSL_CERT_FILE" else "directory"
            raise InputError(
                f"The variable {variable} names no {kind} of certificates that can be read: "
                "correct it or unset it."
            ) from None


def _answer(
    transport: httpx.HTTPTransport,
    connection: Connection,
    address: str,
    limits: Timeouts,
    watch: "_Watch",
) -> httpx.Response:
    """The response that has begun, after redirects within the same host."""
    own = httpx.URL(address)
    credentials = f"{connection.username}:{connection.password.reveal()}".encode()
    headers = {
        "Accept": "*/*",
        "Accept-Encoding": "gzip",
        "Connection": "keep-alive",
        "User-Agent": f"mixpanel-etl/{__version__}",
        "Authorization": f"Basic {base64.b64encode(credentials).decode()}",
    }
    # The watch keeps the finer limits; this one stands behind it.
    timeout = httpx.Timeout(limits.connect, read=limits.first_byte + limits.idle).as_dict()
    extensions = {"timeout": timeout, "trace": watch.trace}
    target = own
    for _ in range(REDIRECTS):
        with watch.waiting():
            request = httpx.Request("GET", target, headers=headers, extensions=extensions)
            response = transport.handle_request(request)
        if not response.has_redirect_location:
            return response
        response.close()
        target = _redirected(own, target, response.headers["location"], connection)
    raise Refused(f"{own.host} redirected the request {REDIRECTS} times.")


def _redirected(
    own: httpx.URL, address: httpx.URL, location: str, connection: Connection
) -> httpx.URL:
    """Where a redirect leads. Credentials stay with their host (P7)."""
    unread = Refused(f"{own.host} redirects to an address that cannot be read. Check the host.")
    if len(location) > LONGEST_LOCATION:
        raise unread
    try:
        target = address.join(location)
    except (httpx.InvalidURL, ValueError):
        raise unread from None
    if _origin(target) != _origin(own):
        shown = clean(f"{target.scheme}://{target.netloc.decode(errors='replace')}", connection)
        other = "another host" if target.host != own.host else "another scheme or port"
        raise Refused(
            f"{own.host} redirects to {shown}, {other}, which would receive the credentials: if"
            " that is right, make it the host."
        )
    return target


def _origin(address: httpx.URL) -> tuple[str, str, int | None]:
    port = address.port or {"https": 443, "http": 80}.get(address.scheme)
    return address.scheme, address.host, port


class _Watch:
    """Ends a request that takes longer than it may, or is not wanted any more.

    httpx knows one limit for every read. Here the first byte may take longer than the next, all
    together must end, and a wait can be stopped; so a thread looks on, and shuts the socket down,
    which wakes whoever reads from it.
    """

    def __init__(
        self,
        connection: Connection,
        limits: Timeouts,
        stopped: Callable[[], bool],
        proxy: Proxy | None = None,
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._stopped = stopped
        self._proxy = proxy
        self._ends = float("inf")
        self._error: Unavailable | None = None
        self._socket: socket.socket | None = None
        self._begun = time.monotonic()
        self._since: float | None = None  # what we wait for was awaited from then on
        self._heard = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="export-watch", daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def waiting(self, *, in_body: bool = False) -> Iterator[None]:
        """Around whatever waits for the network: its exceptions become ours here."""
        self._since = time.monotonic()
        try:
            yield
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            if isinstance(error, httpx.ProxyError):
                self._close()
            # From None: the message of `error` may repeat credentials, or part of an event (P7).
            raise self._error or translated(
                error, self._connection, in_body=in_body, proxy=self._proxy
            ) from None
        except (SOCKSError, AssertionError):
            if not (self._proxy and self._proxy.is_socks):
                raise
            self._close()
            raise self._error or _no_socks(self._proxy) from None
        finally:
            self._since = None
        if self._error:
            raise self._error
        self._heard = self._heard or in_body

    def hurry(self, seconds: float) -> None:
        """End the request in so many seconds at the latest."""
        self._ends = time.monotonic() + seconds

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Httpcore tells what it does; what we want is the socket, bare or with TLS."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._error:
                self._shut_down()

    def _look_on(self) -> None:
        limits = self._limits
        pause = min(0.5, limits.first_byte / 4, limits.idle / 4, limits.total / 4)
        while not self._over.wait(pause):
            if reason := self._reason(time.monotonic()):
                self._error = Unavailable(reason)
                self._shut_down()
                return

    def _reason(self, now: float) -> str | None:
        """Why the request must end now."""
        host, since, limits = self._connection.host, self._since, self._limits
        patience = limits.idle if self._heard else limits.first_byte
        if self._stopped():
            return f"The request to {host} was stopped."
        if now > self._ends or now - self._begun > limits.total:
            return f"{host} did not finish its answer within {limits.total:g} seconds."
        if since is not None and now - since > patience:
            return f"{host} sent nothing for {patience:g} seconds."
        return None

    def _close(self) -> None:
        """Close the connection to a SOCKS proxy, which httpcore leaves open where that refuses."""
        if self._socket:
            self._socket.close()

    def _shut_down(self) -> None:
        if self._socket:
            with suppress(OSError):  # it is closed already
                # Not SSLSocket's own: that would let the reader go on without decryption.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _gunzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What the gzip members in `chunks` hold, PIECE bytes at a time: a bomb cannot fill memory.

    Truncated unless the last one comes to its end, checksum and length included, and nothing else
    follows it (P1).
    """
    member: Any = None
    ended = False
    for chunk in _gathered(chunks):
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


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Larger chunks: the fewer, the less do threads wait for one another."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= GATHERED:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def translated(
    error: Exception,
    connection: Connection,
    *,
    in_body: bool = False,
    proxy: Proxy | None = None,
) -> Refused | Truncated | Unavailable:
    """What an exception of httpx means; `in_body`: the answer had begun well."""
    host = connection.host
    said = clean(_without_bytes(str(error)) or type(error).__name__, connection)
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = clean(str(cause.verify_message), connection)
            return Refused(
                f"The certificate of {host} cannot be verified: {why}. Check the host, and"
                " SSL_CERT_FILE and SSL_CERT_DIR if a proxy of yours opens TLS."
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ProxyError):
        return _refused_by_proxy(str(error), host, proxy)
    if isinstance(error, httpx.RemoteProtocolError) and in_body:  # P1
        return Truncated(f"The response of {host} is not whole: {said}")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        through = f" through the proxy of {proxy.variable}" if proxy else ""
        unreached = Unavailable(
            f"{host} cannot be reached{through}: {said}. Check the network, a proxy or VPN, and"
            " the host."
        )
        unreached.reached = False
        return unreached
    if isinstance(error, httpx.TimeoutException):
        return Unavailable(f"{host} did not answer in time ({type(error).__name__}).")
    return Unavailable(f"The connection to {host} broke: {said}")


def _without_bytes(message: str) -> str:
    """A message of h11's without the bytes of the answer that it ends with: they may be events."""
    return re.split(r":? ?(?:bytearray\()?b['\"]", message[:ERROR_BODY], maxsplit=1)[0]


def _refused_by_proxy(message: str, host: str, proxy: Proxy | None) -> Refused | Unavailable:
    """What a proxy answered when it was asked for a connection; its own words are not shown (P7).

    Over HTTP the message begins with a status, over SOCKS it is one of httpcore's sentences.
    """
    variable = proxy.variable if proxy else "HTTPS_PROXY"
    status = message[:3]
    if status == "407" or message.startswith(("Invalid username", "Requested")):
        return Refused(f"The proxy of {variable} refuses the name and password: check {variable}.")
    answered = f"The proxy of {variable} does not connect us with {host}"
    if status.isdecimal():
        answered += f": it answered {status}"
    final = status.startswith("4") and status not in ("408", "429")
    if final or "not allowed" in message:
        return Refused(f"{answered}. Allow the host there, or name it in NO_PROXY.")
    unreached = Unavailable(f"{answered}. Check the proxy.")
    unreached.reached = False
    return unreached


def _no_socks(proxy: Proxy) -> Unavailable:
    """What an answer means that is none of SOCKS."""
    unreached = Unavailable(
        f"The proxy of {proxy.variable} does not answer as a SOCKS proxy does: check its scheme"
        " and its port."
    )
    unreached.reached = False
    return unreached


def _start(answered: Response, watch: _Watch) -> bytes:
    """The beginning of an error's body: as much of it as comes soon."""
    gathered = bytearray()
    watch.hurry(ERROR_SECONDS)
    with suppress(RetryableError):  # the status says more than how its text broke off
        for chunk in answered.received_chunks():
            gathered += chunk
            if len(gathered) >= ERROR_BODY:
                break
    start = bytes(gathered)
    if answered.encoding in GZIP:
        with suppress(isal_zlib.error):  # type: ignore[arg-type]  # stubs: an instance
            return isal_zlib.decompressobj(wbits=31).decompress(start, ERROR_BODY)
    return start[:ERROR_BODY] if answered.encoding == "identity" else b""
