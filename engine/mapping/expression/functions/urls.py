"""Parts of URLs. A text without scheme or host, or that cannot be read, has none: null."""

from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from engine.mapping.expression.functions.table import Table
from engine.mapping.expression.values import TransformError, bounded, shown

TABLE = Table("URL")
PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443, "ftp": 21, "sftp": 22, "ssh": 22}
ANCHORS = ("retain", "remove", "append")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url.strip())
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError:
        return None
    return parts if parts.scheme and parts.hostname else None


@TABLE.define("get_url_protocol(URL: text)", "text", 'get_url_protocol("https://a.b/c")')
def get_url_protocol(url: str) -> str | None:
    """The scheme of a URL, in lower case."""
    parts = _split(url)
    return parts.scheme if parts else None


@TABLE.define("get_url_host(URL: text)", "text", 'get_url_host("https://a.b/c")')
def get_url_host(url: str) -> str | None:
    """The host of a URL as it is written, without user and port."""
    parts = _split(url)
    if not parts or not parts.hostname:
        return None
    host = parts.netloc.rpartition("@")[2]
    if host.startswith("["):
        return host[: host.index("]") + 1]
    return host.partition(":")[0]


@TABLE.define("get_url_port(URL: text)", "integer", 'get_url_port("sftp://a.b/c")')
def get_url_port(url: str) -> int | None:
    """The port of a URL: the one that is written, else that of its scheme."""
    parts = _split(url)
    if not parts:
        return None
    return PORTS.get(parts.scheme) if parts.port is None else parts.port


@TABLE.define(
    "get_url_path(URL: text, FULL: boolean = true)", "text", 'get_url_path("sftp://a.b/c/d.csv")'
)
def get_url_path(url: str, full: Any) -> str | None:
    """The path of a URL; what follows its last slash if FULL is false."""
    parts = _split(url)
    if not parts:
        return None
    return parts.path if full or full is None else parts.path.rpartition("/")[2]


@TABLE.define(
    "get_url_query_str(URL: text, ANCHOR: text)",
    "object",
    'get_url_query_str("https://a.b/c?name=ferret#nose", "remove")',
)
def get_url_query_str(url: str, anchor: str | None) -> dict[str, str] | None:
    """The query of a URL as an object, not decoded; ANCHOR is retain, remove or append."""
    mode = "retain" if anchor is None else anchor.strip().lower()
    if mode not in ANCHORS:
        raise TransformError(f"{shown(anchor)} is no way to treat an anchor: {', '.join(ANCHORS)}")
    parts = _split(url)
    if not parts:
        return None
    query, fragment = parts.query, parts.fragment
    if mode == "retain" and fragment:
        query += f"#{fragment}"
    found = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        found[name] = value
    if mode == "append" and fragment:
        found["_anchor_"] = fragment
    return found


@TABLE.define("get_url_encoded(URL: text)", "text", 'get_url_encoded("https://a.b/c d")')
def get_url_encoded(url: str) -> str:
    """The text with all but letters, digits, - _ and . percent-encoded."""
    return bounded(quote(url, safe="", errors="replace").replace("~", "%7E"))


@TABLE.define("get_url_decoded(URL: text)", "text", 'get_url_decoded("https%3A%2F%2Fa.b")')
def get_url_decoded(url: str) -> str:
    """The text with its percent-encoding undone."""
    return unquote(url)
