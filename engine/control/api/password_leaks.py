"""P7: refuse bodies with a text that holds the password of a connection.

Every client that has the token can read these texts.
"""

from base64 import b32encode, b64encode
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import quote, unquote

import re2

from engine.catalog.resources import Json
from engine.config.value_types import MASK
from engine.control.api.app_state import AppState
from engine.control.api.problems import invalid

LEAST = 6  # characters: a shorter password is part of many words by chance


def check_texts(state: AppState, body: Json) -> None:
    """Raise Problem where any text of a body holds the password of any connection.

    Passwords shorter than LEAST are not searched for.
    """
    forms = set[str]()
    for connection in state.resources.all("connections"):
        params = (connection.body.get("auth") or {}).get("params") or {}
        secrets = state.secret_store.try_decrypt(connection.secret) or {}
        for value in map(str, secrets.values()):
            if len(value) >= LEAST:
                forms.update(_forms(value, str(params.get("username", ""))))
    _check(body, forms, set())


def check_own_texts(body: Json, secret: Json, user: str) -> None:
    """Raise Problem where a text of a body holds one of these secrets.

    A secret may be plain or encoded, alone or after the name of its user, as in Basic
    authentication. One that is shorter than LEAST is found as a whole text only.
    """
    values = [str(value) for value in secret.values() if value and value != MASK]
    long = {form for value in values if len(value) >= LEAST for form in _forms(value, user)}
    _check(body, long, {value for value in values if len(value) < LEAST})


def _check(body: Json, long: set[str], short: set[str]) -> None:
    texts = list(_texts(body, ""))
    present = _contained("\n".join(text for _, text in texts), long)  # one pass over many texts
    for where, text in texts if present or short else ():
        if text.strip() in short or (present and _contained(text, present)):
            raise invalid(
                "1400-400",
                f"{where}: holds the password of a connection, and everybody is shown it. "
                "Write the password into auth.params.password, and nowhere else.",
            )


def _contained(text: str, forms: set[str]) -> set[str]:
    readings = _readings(text)
    return {form for form in forms if any(form in each for each in readings)}


def _forms(secret: str, user: str) -> Iterator[str]:
    """Yield a secret in every encoding that `_readings` does not decode."""
    yield secret
    yield secret[::-1]
    yield quote(secret, safe="")
    for text in (secret, f"{user}:{secret}"):
        yield b64encode(text.encode("utf-8", "replace")).decode().rstrip("=")
    encoded = secret.encode("utf-8", "replace")
    yield encoded.hex()
    yield b32encode(encoded).decode().rstrip("=")
    for before in range(3):  # base64 within other text: the inner part, which no neighbour changes
        inner = b64encode(b"\0" * before + encoded)[(0, 2, 3)[before] :]
        yield inner[: len(inner) - (0, 3, 2)[(before + len(encoded)) % 3]].decode()


def _readings(text: str) -> set[str]:
    """Return a text, and the text with each encoding decoded that may hide a secret."""
    read = {text}
    if "%" in text:
        once = unquote(text)
        read |= {once, unquote(once)}
    if "&" in text:
        read.add(unescape(text))
    if "\\" in text:
        read.add(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), text))
    if not text.isprintable():
        read.add("".join(filter(str.isprintable, text)))
    if "-" in text or "_" in text:
        read.add(text.replace("-", "+").replace("_", "/"))
    read.add("".join(text.lower().translate(_BETWEEN).split()))
    return read


_ESCAPED = re2.compile(r"\\u([0-9a-fA-F]{4})")
_BETWEEN = {ord(sign): None for sign in ":-"}  # may stand between hexadecimal digits


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield all texts of a body, its keys too, each with its place.

    Only a key of _PLACES is named as a place: any other may be the secret itself.
    """
    if isinstance(value, str):
        yield where or "body", value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, where)
    elif isinstance(value, dict):
        for key, each in value.items():
            if where != "auth":
                yield where or "body", key
            yield from _texts(each, where or (key if key in _PLACES else "body"))


_PLACES = ("name", "description", "tags", "auth", "data", "params", "title", "options", "labels")
