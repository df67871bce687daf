"""The proxy and the certificates that the environment sets for a host, as curl reads it. Pure.

A variable that cannot be read is an error only if this host needs it. The error names the variable
and not its value, which may hold a password (P7).
"""

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from engine.errors import InputError

SCHEMES = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
ALIASES = {"": "http", "socks": "socks5h"}
HINT = "Write it as http://name:password@host:port, or socks5h://host:port."
LONGEST = 1 << 16  # characters of a variable that are read


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy without its credentials, and the `variable` that names it."""

    url: str
    variable: str
    auth: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether the proxy speaks SOCKS and not HTTP."""
        return self.url.startswith("socks")


def proxy_for(address: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for an https `address`, if any; InputError if its variable is unreadable."""
    variable = _first(("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), environ)
    parts = urlsplit(address)
    if variable is None or _is_excluded(parts.hostname or "", parts.port or 443, environ):
        return None
    try:
        return _parsed(environ[variable].strip(), variable)
    except ValueError:
        # From None: the message could repeat a part of the value (P7).
        raise InputError(
            f"The variable {variable} names no proxy that can be used for {parts.hostname}. {HINT}"
        ) from None


def certificates(environ: Mapping[str, str]) -> dict[str, str]:
    """Return SSL_CERT_FILE and SSL_CERT_DIR by name, if they are set."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    return {name: value for name in names if (value := environ.get(name, "").strip())}


def _first(names: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    return next((name for name in names if environ.get(name, "").strip()), None)


def _parsed(value: str, variable: str) -> Proxy:
    """Parse the proxy in a variable's value; ValueError if there is none in it."""
    value.encode()  # UnicodeEncodeError for bytes that are no UTF-8
    scheme, separator, rest = value.partition("://")
    scheme, rest = (scheme.lower(), rest) if separator else ("", value)
    scheme = ALIASES.get(scheme, scheme)
    if scheme not in SCHEMES or len(value) > LONGEST:
        raise ValueError
    credentials, at, place = rest.rpartition("@")  # a password may hold any sign, but for this one
    place = place.partition("/")[0]
    parts = urlsplit(f"//{place}")
    host, port = parts.hostname, parts.port
    if not host or parts.netloc != place or not all(map(_is_plain, host)):
        raise ValueError
    name, _, password = credentials.partition(":")
    host = f"[{host}]" if ":" in host else host
    auth = (unquote(name), unquote(password)) if at else None
    return Proxy(f"{scheme}://{host}:{port or SCHEMES[scheme]}", variable, auth)


def _is_plain(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char in "-._:")


def _is_excluded(host: str, port: int, environ: Mapping[str, str]) -> bool:
    variable = _first(("no_proxy", "NO_PROXY"), environ)
    if variable is None:
        return False
    entries = environ[variable][:LONGEST].replace(",", " ").split()
    return any(_matches(entry.lower(), host.lower().rstrip("."), port) for entry in entries)


def _matches(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of NO_PROXY means this host; an unreadable entry means no host."""
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2].rstrip("/")
    with suppress(ValueError):
        if "/" in entry or (entry.count(":") > 1 and not entry.startswith("[")):
            network = ipaddress.ip_network(entry.translate({91: None, 93: None}), strict=False)
            return ipaddress.ip_address(host) in network
        parts = urlsplit(f"//{entry}")
        name = (parts.hostname or "").removeprefix("*").strip(".")
        if not name or parts.port not in (None, port):
            return False
        with suppress(ValueError):
            return ipaddress.ip_address(name) == ipaddress.ip_address(host)
        return host == name or (host.endswith(f".{name}") and not _is_address(host))
    return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
