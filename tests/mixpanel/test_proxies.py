"""The proxy, its exceptions and the certificates that the environment sets (P7)."""

import datetime
import ipaddress
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.errors import EtlError, InputError, Refused, Unavailable
from engine.mixpanel.client import stream
from engine.mixpanel.proxies import Proxy, proxy_for
from tests.mixpanel.test_client import BASIC, CALM, DAY, EVENT, connection, serving, sized

HOST = "https://data.mixpanel.com"
VARIABLES = [
    each(name)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for each in (str.lower, str.upper)
] + ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE", "NETRC"]
SECRET = "hunter2"
CIDR = "localhost,127.0.0.1,fd07:b51a:cc66:f0::/64"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


# -- which proxy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "url", "variable"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "http://p:1"}, None, None),
        ({"REQUEST_METHOD": "GET", "HTTP_PROXY": "http://p:1"}, None, None),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://p:1", "https_proxy": "http://q:2"}, "http://q:2", "https_proxy"),
        ({"HTTPS_PROXY": "http://p:1", "https_proxy": ""}, "http://p:1", "HTTPS_PROXY"),
        ({"ALL_PROXY": "http://p:1"}, "http://p:1", "ALL_PROXY"),
        ({"all_proxy": "http://q:2", "ALL_PROXY": "p:1"}, "http://q:2", "all_proxy"),
        ({"ALL_PROXY": "nonsense://x", "HTTPS_PROXY": "p:1"}, "http://p:1", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": " p.example.org:3128\n"}, "http://p.example.org:3128", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "p"}, "http://p:80", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "HTTPS://p/"}, "https://p:443", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "[::1]:3128"}, "http://[::1]:3128", "HTTPS_PROXY"),
        ({"ALL_PROXY": "socks://127.0.0.1:7890/"}, "socks5h://127.0.0.1:7890", "ALL_PROXY"),
        ({"ALL_PROXY": "socks5://p"}, "socks5://p:1080", "ALL_PROXY"),
        ({"ALL_PROXY": "socks5h://p:9"}, "socks5h://p:9", "ALL_PROXY"),
    ],
)
def test_the_proxy_of_a_host(
    environ: dict[str, str], url: str | None, variable: str | None
) -> None:
    """Variables have curl's order: small letters first, HTTPS_PROXY before ALL_PROXY."""
    found = proxy_for(HOST, environ)
    assert (found and found.url, found and found.variable) == (url, variable)


@pytest.mark.parametrize(
    ("value", "auth"),
    [
        ("http://me:hunter2@p:1", ("me", SECRET)),
        ("me:hunter2@p:1", ("me", SECRET)),
        ("http://me:h%40x@p:1", ("me", "h@x")),
        ("http://me:a@b:c/d#e?f@p:1", ("me", "a@b:c/d#e?f")),
        ("http://me@p:1", ("me", "")),
        ("http://p:1", None),
    ],
)
def test_the_credentials_of_a_proxy(value: str, auth: tuple[str, str] | None) -> None:
    """A password may hold any sign; neither address nor `repr` shows it (P7)."""
    found = proxy_for(HOST, {"HTTPS_PROXY": value})
    assert found is not None
    assert (found.url, found.auth) == ("http://p:1", auth)
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    "value",
    ["gopher://me:hunter2@p:1", "me:hunter2@x:y", "http://me:hunter2@", "http://me:hunter2@p:99999",
     "http://me:hunter2@a b:1", "socks4://me:hunter2@p:1", "http://me:hunter2@[::1:1",
     "http://me:hunter2@p\udcff:1", "http://me:hunter2@p?x:1", "http://me:hunter2@p:1\n2", "://"],
)  # fmt: skip
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
def test_a_proxy_that_cannot_be_read_is_named_by_its_variable(value: str, variable: str) -> None:
    """The error names the variable and not its value, and no request is made (P7)."""
    with pytest.raises(InputError, match=f"{variable} names no proxy.*data.mixpanel.com") as caught:
        proxy_for(HOST, {variable: value})
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(part in shown for part in (SECRET, "gopher", "99999", "\udcff"))
    assert proxy_for(HOST, {variable: value, "NO_PROXY": "mixpanel.com"}) is None


EXCLUDES = [
    ("*", HOST, True),
    ("data.mixpanel.com", HOST, True),
    ("DATA.Mixpanel.com.", HOST, True),
    ("mixpanel.com", HOST, True),
    (".mixpanel.com", HOST, True),
    ("*.mixpanel.com", HOST, True),
    ("panel.com", HOST, False),
    ("data.mixpanel.com.org", HOST, False),
    ("a, b;c,data.mixpanel.com", HOST, True),
    ("a data.mixpanel.com", HOST, True),
    ("data.mixpanel.com:443", HOST, True),
    ("data.mixpanel.com:80", HOST, False),
    ("mixpanel.com:8443", HOST + ":8443", True),
    ("https://data.mixpanel.com/", HOST, True),
    ("data.mixpanel.com:x,::::,/,[,10.0.0.0/99,fd07::/64/64,mixpanel.com", HOST, True),
    (CIDR, HOST, False),
    (CIDR, "https://[fd07:b51a:cc66:f0::5]", True),
    (CIDR, "https://[fd07:b51a:cc66:f1::5]", False),
    (CIDR, "https://127.0.0.1", True),
    ("[fd07:b51a:cc66:f0::5]", "https://[fd07:b51a:cc66:f0:0::5]", True),
    ("fd07:b51a:cc66:f0::5", "https://[fd07:b51a:cc66:f0:0::5]", True),
    ("[fd07::5]:443", "https://[fd07::5]", True),
    ("[fd07::5]:80", "https://[fd07::5]", False),
    ("10.0.0.0/8", "https://10.1.2.3", True),
    ("10.9.9.9/8", "https://10.1.2.3", True),
    ("10.0.0.0/8", "https://11.1.2.3", False),
    ("10.1.2.3:8443", "https://10.1.2.3:8443", True),
    ("2.3", "https://10.1.2.3", False),
    (".", HOST, False),
    ("", HOST, False),
]


@pytest.mark.parametrize(("entries", "address", "excluded"), EXCLUDES)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_the_hosts_without_a_proxy(
    entries: str, address: str, excluded: bool, variable: str
) -> None:
    """NO_PROXY takes hosts, domains, ports, addresses, ranges; a bad entry is ignored."""
    found = proxy_for(address, {"HTTPS_PROXY": "http://p:1", variable: entries})
    assert (found is None) == excluded


# -- over sockets ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 and of data.example, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    hosts: list[x509.GeneralName] = [x509.DNSName("data.example")]
    hosts.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


class Peer:
    """A socket that treats its one connection by `serve`, and notes what it received."""

    def __init__(self, serve: Callable[[socket.socket, list[bytes]], None]) -> None:
        self.heard: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=[serve], daemon=True)
        self._thread.start()

    def _run(self, serve: Callable[[socket.socket, list[bytes]], None]) -> None:
        with suppress(OSError):
            peer, _ = self._listening.accept()
            with peer:
                serve(peer, self.heard)

    def stop(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)


@contextmanager
def peer(serve: Callable[[socket.socket, list[bytes]], None]) -> Iterator[Peer]:
    made = Peer(serve)
    try:
        yield made
    finally:
        made.stop()


def head_of(connected: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        head += connected.recv(4096) or b"\r\n\r\n"
    return head


def mixpanel(connected: socket.socket, heard: list[bytes], certificate: Path) -> None:
    """A server over TLS that answers one request with one event."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with context.wrap_socket(connected, server_side=True) as tls:
        heard.append(head_of(tls))
        tls.sendall(sized(EVENT))


def tunnel(certificate: Path) -> Callable[[socket.socket, list[bytes]], None]:
    def serve(connected: socket.socket, heard: list[bytes]) -> None:
        heard.append(head_of(connected))
        connected.sendall(b"HTTP/1.1 200 fine\r\n\r\n")
        mixpanel(connected, heard, certificate)

    return serve


def socks(
    certificate: Path | None, *, wants: int = 0, login: bytes = b"\1\0", code: int = 0
) -> Callable[[socket.socket, list[bytes]], None]:
    def serve(connected: socket.socket, heard: list[bytes]) -> None:
        heard.append(connected.recv(4096))
        connected.sendall(bytes([5, wants]))
        if wants == 2:
            heard.append(connected.recv(4096))
            connected.sendall(login)
        heard.append(connected.recv(4096))
        connected.sendall(bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0]))
        if certificate:
            mixpanel(connected, heard, certificate)

    return serve


def says(answer: bytes) -> Callable[[socket.socket, list[bytes]], None]:
    def serve(connected: socket.socket, heard: list[bytes]) -> None:
        heard.append(connected.recv(4096))
        connected.sendall(answer)

    return serve


def ask(host: str = "https://data.example") -> bytes:
    with stream(connection(host), DAY, timeouts=CALM) as answer:
        return b"".join(answer)


@pytest.mark.parametrize("scheme", ["http", "socks", "socks5", "socks5h"])
@pytest.mark.parametrize("login", ["", "me:hunter2@"])
def test_events_come_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, scheme: str, login: str
) -> None:
    """Mixpanel's credentials go to Mixpanel, the proxy's to the proxy, which resolves the name."""
    serve = tunnel(certificate)
    if scheme != "http":
        serve = socks(certificate, wants=2 if login else 0)
    with peer(serve) as through:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://{login}127.0.0.1:{through.port}/")
        monkeypatch.setenv("NO_PROXY", CIDR)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert ask() == EVENT
    *before, request = through.heard
    assert BASIC.encode() in request
    assert b"data.example" in b"".join(before)
    assert BASIC.encode() not in b"".join(before)
    proxys = b"bWU6aHVudGVyMg==" if scheme == "http" else b"hunter2"
    assert (proxys in b"".join(before)) == bool(login)
    assert b"hunter2" not in request


@pytest.mark.parametrize(
    "environ",
    [
        {"NO_PROXY": CIDR, "HTTPS_PROXY": "http://127.0.0.1:9"},
        {"NO_PROXY": "10.0.0.0/99,127.0.0.1", "HTTPS_PROXY": "gopher://x"},
        {"ALL_PROXY": "socks://127.0.0.1:7890/", "NO_PROXY": "127.0.0.0/8"},
        {"HTTP_PROXY": "nonsense://x"},
        {"SSLKEYLOGFILE": "/no/such/folder/keys"},
        {"NETRC": "/no/such/netrc"},
    ],
    ids=str,
)
def test_what_does_not_matter_for_the_host_harms_nothing(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, environ: dict[str, str]
) -> None:
    """A bad variable that this host does not need is ignored."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with peer(lambda connected, heard: mixpanel(connected, heard, certificate)) as server:
        assert ask(f"https://127.0.0.1:{server.port}") == EVENT


def test_no_key_of_a_connection_is_logged(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, tmp_path: Path
) -> None:
    """P7: SSLKEYLOGFILE is ignored: keys on a disk would open a recording of the credentials."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with peer(lambda connected, heard: mixpanel(connected, heard, certificate)) as server:
        assert ask(f"https://127.0.0.1:{server.port}") == EVENT
    assert not (tmp_path / "keys").exists()


def test_a_netrc_of_the_environment_is_nobodys_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only the declared credentials are sent, and none of a netrc file."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(sized(EVENT)) as server:
        assert ask(server.url) == EVENT
        assert BASIC in server.requests[0]


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("kind", ["missing", "junk"])
def test_certificates_that_cannot_be_read_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, kind: str
) -> None:
    """The error names the variable, and no request is made."""
    path = tmp_path / "hunter2"
    if kind == "junk":
        path.write_text("no certificate")
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(InputError, match=f"The variable {variable} names no") as caught:
        ask()
    assert SECRET not in str(caught.value)


def test_a_folder_of_certificates_is_used(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, tmp_path: Path
) -> None:
    """File and folder of certificates are both used, as by OpenSSL."""
    monkeypatch.setenv("SSL_CERT_DIR", f"/no/such/folder:{tmp_path}")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with peer(lambda connected, heard: mixpanel(connected, heard, certificate)) as server:
        assert ask(f"https://127.0.0.1:{server.port}") == EVENT


REFUSALS = [
    ("http", says(b"HTTP/1.1 407 for me:hunter2\r\nContent-Length: 0\r\n\r\n"), Refused,
     "The proxy of HTTPS_PROXY refuses the name and password: check HTTPS_PROXY"),
    ("http", says(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), Refused,
     "proxy of HTTPS_PROXY does not connect us with https://data.example: it answered 403"),
    ("http", says(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n"), Unavailable,
     "proxy of HTTPS_PROXY does not connect us with https://data.example: it answered 502"),
    ("http", says(b"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n"), Unavailable, "answered 429"),
    ("http", says(b""), Unavailable, "data.example"),
    ("socks5h", says(b"\5\xff"), Refused, "proxy of HTTPS_PROXY refuses the name and password"),
    ("socks5h", socks(None, wants=2, login=b"\1\1"), Refused, "refuses the name and password"),
    ("socks5h", socks(None, wants=2, code=2), Refused, "Allow the host there"),
    ("socks5h", socks(None, wants=2, code=5), Unavailable, "HTTPS_PROXY does not connect us with"),
    ("socks5h", says(b"HTTP/1.1 400 what\r\n\r\n"), Unavailable, "as a SOCKS proxy does"),
    ("socks5h", says(b""), Unavailable, "HTTPS_PROXY"),
]  # fmt: skip


@pytest.mark.parametrize(("scheme", "serve", "kind", "words"), REFUSALS)
def test_a_proxy_that_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    serve: Callable[[socket.socket, list[bytes]], None],
    kind: type[EtlError],
    words: str,
) -> None:
    """The error of a proxy that refuses names its variable and no credentials (P7)."""
    with peer(serve) as through:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://me:hunter2@127.0.0.1:{through.port}")
        with pytest.raises(EtlError, match=words) as caught:
            ask()
    assert type(caught.value) is kind
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert "bWU6aHVudGVyMg" not in shown
    if kind is Unavailable and words != "data.example":
        assert not caught.value.reached  # type: ignore[attr-defined]  # costs nothing of the hour


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of an unreachable proxy names its variable."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://me:hunter2@127.0.0.1:{port}")
    with pytest.raises(Unavailable, match="through the proxy of https_proxy") as caught:
        ask()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_nothing_shows_the_password_of_a_proxy() -> None:
    """P7: neither `repr` nor a derived value shows the password of a proxy."""
    assert SECRET not in repr(Proxy("http://p:1", "HTTPS_PROXY", ("me", SECRET)))
