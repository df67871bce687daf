"""Hashes, in lower-case hexadecimal digits."""

import hashlib
import zlib
from collections.abc import Callable

from engine.mapping.expression.functions.table import Table
from engine.mapping.expression.values import TransformError, shown

TABLE = Table("Hashing")
CHARSETS = {
    "utf-8": "utf-8",
    "utf-16": "utf-16-be",
    "iso-8859-1": "iso-8859-1",
    "us-ascii": "ascii",
}


def charset(name: str | None) -> str:
    """Python's name of a character set; TransformError for one that is not known."""
    found = CHARSETS.get("utf-8" if name is None else name.strip().lower())
    if found is None:
        raise TransformError(f"{shown(name)} is no character set that is known")
    return found


def _bytes(string: str, name: str | None) -> bytes:
    """A text's bytes, as Java encodes it: UTF-16 with a mark, `?` for what does not fit."""
    python = charset(name)
    mark = b"\xfe\xff" if python == "utf-16-be" else b""
    return mark + string.encode(python, "replace")


def _crc32(data: bytes) -> str:
    """The checksum's four bytes from the lowest to the highest, as Data Prep prints them."""
    return zlib.crc32(data).to_bytes(4, "little").hex()


ALGORITHMS: dict[str, Callable[[bytes], str]] = {
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).hexdigest(),
    "sha256": lambda data: hashlib.sha256(data).hexdigest(),
    "sha512": lambda data: hashlib.sha512(data).hexdigest(),
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
    "crc32": _crc32,
}


def _define(name: str) -> None:
    digest = ALGORITHMS[name]

    def code(string: str, charset_name: str | None) -> str:
        return digest(_bytes(string, charset_name))

    code.__doc__ = f"The {name} hash of a text, in hexadecimal digits."
    TABLE.define(
        f"{name}(INPUT: text, CHARSET: charset = UTF-8)", "text", f'{name}("my text", "UTF-8")'
    )(code)


for _name in ALGORITHMS:
    _define(_name)


@TABLE.define(
    "hash(ALGORITHM: text, INPUT: text, CHARSET: charset = UTF-8)",
    "text",
    'hash("sha256", "my text")',
)
def hashed(algorithm: str, string: str | None, charset_name: str | None) -> str | None:
    """The hash of a text by the algorithm sha1, sha256, sha512, md5 or crc32."""
    digest = ALGORITHMS.get(algorithm.strip().lower())
    if digest is None:
        raise TransformError(f"{shown(algorithm)} is no hash that is known")
    return None if string is None else digest(_bytes(string, charset_name))
