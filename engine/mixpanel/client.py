"""Request a window from Mixpanel: a response, or an error of ours. The only importer of httpx.

Requests go through httpx's transport and not its client: the client reads more of the environment
than wanted, follows any redirect, and parses cookies with regular expressions that backtrack.
"""

import base64
import ipaddress
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import certifi
import httpx
from isal import isal_zlib
from socksio.exceptions import SOCKSError

from engine import __version__
from engine.errors import InputError, Refused, RetryableError, Truncated, Unavailable
from engine.mixpanel.proxies import Proxy, certificates, proxy_for
from engine.mixpanel.response_body import GZIP, Response
from engine.mixpanel.responses import clean, verdict
from engine.mixpanel.timeouts import DEFAULT_TIMEOUTS, Timeouts, Watchdog
from engine.model.flow import Connection
from engine.model.window import Window

ENDPOINT = "/api/2.0/export"
MOST_EVENTS = 100_000  # the largest `limit` that Mixpanel accepts
ERROR_BODY = 1 << 16  # bytes of an error's body that are read
ERROR_SECONDS = 30  # time-out for an error's body: its status says enough
LONGEST_LOCATION = 1 << 13  # characters of an address to which a server may redirect
REDIRECTS = 5
HOST_NAME = re.compile(r"(?:[\w-]{1,63}\.)*[\w-]{1,63}\.?|[0-9a-f:.]+")
Waiting = Callable[[], AbstractContextManager[None]]


def url(
    connection: Connection,
    window: Window,
    events: Sequence[str] = (),
    where: str | None = None,
    limit: int | None = None,
) -> str:
    """Build the address of a request, which is safe to print: it holds no credentials (P7).

    Raises InputError for a host that is no address and for an address of more than 64 KiB.
    """
    query = params(connection, window, events, where, limit)
    try:
        return str(httpx.URL(_endpoint(connection), params=query))
    except httpx.InvalidURL:  # longer than 64 KiB
        raise InputError(
            "The events and the filter make a request that is too long for an address. "
            "Ask for fewer events, or with a shorter filter."
        ) from None


def params(
    connection: Connection,
    window: Window,
    events: Sequence[str] = (),
    where: str | None = None,
    limit: int | None = None,
) -> dict[str, str]:
    """Build the query of a request; an arrival window is combined with the flow's `where`.

    Raises InputError for a `limit` that Mixpanel does not accept.
    """
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


def _endpoint(connection: Connection) -> str:
    """Build the export endpoint. Basic credentials go over TLS or to this machine alone (P7)."""
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


@contextmanager
def stream(
    connection: Connection,
    window: Window,
    *,
    events: Sequence[str] = (),
    where: str | None = None,
    limit: int | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    stopped: Callable[[], bool] = lambda: False,
    now: Callable[[], float] = time.time,
) -> Iterator[Response]:
    """Make one request; leaving the `with` block closes the connection at once (P8).

    `stopped` is called about twice a second from another thread: once it returns true, a wait for
    the network ends with Unavailable. `now`: seconds since the epoch. Raises, here or while the
    body is read: InputError, Refused, RateLimited, Unavailable; Truncated for half a body (P1).
    """
    address = url(connection, window, events, where, limit)
    # Basic credentials over http go to this machine alone, so never through a proxy.
    proxy = proxy_for(address, os.environ) if address.startswith("https:") else None
    with (
        _transport(address, proxy) as transport,
        Watchdog(connection.host, timeouts, stopped) as watchdog,
    ):
        waiting = partial(_waiting, watchdog, connection, proxy)
        # A second line of defence behind the watchdog's finer time-outs.
        timeout = httpx.Timeout(timeouts.connect, read=timeouts.first_byte + timeouts.idle)
        timing = {"timeout": timeout.as_dict(), "trace": watchdog.trace}
        with closing(_open(transport, connection, address, timing, waiting)) as opened:
            response = Response(opened, connection, partial(waiting, in_body=True))
            if response.status != httpx.codes.OK:
                failed = response.status >= httpx.codes.BAD_REQUEST
                body = _error_body(response, watchdog) if failed else b""
                raise verdict(response.status, opened.headers, body, connection, now())
            yield response


def _transport(address: str, proxy: Proxy | None) -> httpx.HTTPTransport:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unlike Python's default, it logs no keys (P7)
    if address.startswith("https:"):
        _trust(tls, certificates(os.environ))
    # A TLS context may be passed only for a proxy that speaks TLS.
    inner = tls if proxy and proxy.url.startswith("https:") else None
    through = httpx.Proxy(proxy.url, auth=proxy.auth, ssl_context=inner) if proxy else None
    return httpx.HTTPTransport(verify=tls, proxy=through, trust_env=False)


def _trust(tls: ssl.SSLContext, named: Mapping[str, str]) -> None:
    """Load the certificates that environment variables name, or those of certifi."""
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


def _open(
    transport: httpx.HTTPTransport,
    connection: Connection,
    address: str,
    extensions: Mapping[str, Any],
    waiting: Waiting,
) -> httpx.Response:
    """Send the request, follow redirects within its host, and return the response's head."""
    own = httpx.URL(address)
    credentials = f"{connection.username}:{connection.password.reveal()}".encode()
    headers = {
        "Accept": "*/*",
        "Accept-Encoding": "gzip",
        "Connection": "keep-alive",
        "User-Agent": f"mixpanel-etl/{__version__}",
        "Authorization": f"Basic {base64.b64encode(credentials).decode()}",
    }
    target = own
    for _ in range(REDIRECTS):
        with waiting():
            request = httpx.Request("GET", target, headers=headers, extensions=dict(extensions))
            response = transport.handle_request(request)
        if not response.has_redirect_location:
            return response
        response.close()
        target = _redirected(own, target, response.headers["location"], connection)
    raise Refused(f"{own.host} redirected the request {REDIRECTS} times.")


def _redirected(
    own: httpx.URL, address: httpx.URL, location: str, connection: Connection
) -> httpx.URL:
    """Return the target of a redirect. Credentials stay with their host (P7)."""
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


@contextmanager
def _waiting(
    watchdog: Watchdog, connection: Connection, proxy: Proxy | None, *, in_body: bool = False
) -> Iterator[None]:
    """Wait for the network within the time-outs, and translate exceptions of httpx."""
    try:
        with watchdog.waiting(in_body=in_body):
            yield
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
        if isinstance(error, httpx.ProxyError):
            watchdog.close_socket()
        # From None: the message of `error` may repeat credentials, or part of an event (P7).
        ours = watchdog.error or translated(error, connection, in_body=in_body, proxy=proxy)
        raise ours from None
    except (SOCKSError, AssertionError):
        if not (proxy and proxy.is_socks):
            raise
        watchdog.close_socket()
        raise watchdog.error or _unreached(
            f"The proxy of {proxy.variable} does not answer as a SOCKS proxy does: check its scheme"
            " and its port."
        ) from None


def translated(
    error: Exception, connection: Connection, *, in_body: bool = False, proxy: Proxy | None = None
) -> Refused | Truncated | Unavailable:
    """Translate an exception of httpx; `in_body`: the response had started well."""
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
        return _unreached(
            f"{host} cannot be reached{through}: {said}. Check the network, a proxy or VPN, and"
            " the host."
        )
    if isinstance(error, httpx.TimeoutException):
        return Unavailable(f"{host} did not answer in time ({type(error).__name__}).")
    return Unavailable(f"The connection to {host} broke: {said}")


def _without_bytes(message: str) -> str:
    """Cut from a message of h11 the bytes of the response that end it: they may be events (P7)."""
    return re.split(r":? ?(?:bytearray\()?b['\"]", message[:ERROR_BODY], maxsplit=1)[0]


def _refused_by_proxy(message: str, host: str, proxy: Proxy | None) -> Refused | Unavailable:
    """Translate a proxy's refusal to connect; its own text is not shown (P7).

    Over HTTP the message begins with a status, over SOCKS it is one of httpcore's sentences.
    """
    variable = proxy.variable if proxy else "HTTPS_PROXY"
    status = message[:3]
    if status == "407" or message.startswith(("Invalid username", "Requested")):
        return Refused(f"The proxy of {variable} refuses the name and password: check {variable}.")
    answered = f"The proxy of {variable} does not connect us with {host}"
    answered += f": it answered {status}" if status.isdecimal() else ""
    final = status.startswith("4") and status not in ("408", "429")
    if final or "not allowed" in message:
        return Refused(f"{answered}. Allow the host there, or name it in NO_PROXY.")
    return _unreached(f"{answered}. Check the proxy.")


def _unreached(message: str) -> Unavailable:
    error = Unavailable(message)
    error.reached = False
    return error


def _error_body(response: Response, watchdog: Watchdog) -> bytes:
    """Read the start of an error's body, as much as arrives within ERROR_SECONDS."""
    start = b""
    watchdog.end_within(ERROR_SECONDS)
    with suppress(RetryableError):  # the status matters more than the end of the body
        for chunk in response.received_chunks():
            start += chunk
            if len(start) >= ERROR_BODY:
                break
    if response.encoding in GZIP:
        with suppress(isal_zlib.error):  # type: ignore[arg-type]  # stubs: an instance
            return isal_zlib.decompressobj(wbits=31).decompress(start, ERROR_BODY)
    return start[:ERROR_BODY] if response.encoding == "identity" else b""
