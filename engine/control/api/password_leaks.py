"""No text that everybody is shown holds the password of a connection (P7)."""

from base64 import b32encode, b64encode
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import quote, unquote

import re2

from engine.catalog.resources import Json, Resource
from engine.control.api.app_state import AppState
from engine.control.api.problems import invalid
from engine.control.validation import MASK
from engine.errors import InputError

LEAST = 6  # characters: a shorter password stands in many a word by chance


def check_texts(state: AppState, body: Json) -> None:
    """Raise where a text of a body, wherever in it, holds the password of any connection, unless
    that is shorter than LEAST.
    """
    forms = set[str]()
    for connection in state.resources.all("connections"):
        params = (connection.body.get("auth") or {}).get("params") or {}
        for value in map(str, opened(state, connection).values()):
            if len(value) >= LEAST:
                forms.update(_forms(value, str(params.get("username", ""))))
    _check(body, forms, set())


def check_own_texts(body: Json, secret: Json, user: str) -> None:
    """Raise where a text of a body holds one of these secrets, as it is or encoded, alone or, as
    for Basic authentication, after the name of its user.

    A secret that is shorter than LEAST is only found as a whole text.
    """
    values = [str(value) for value in secret.values() if value and value != MASK]
    long = {form for value in values if len(value) >= LEAST for form in _forms(value, user)}
    _check(body, long, {value for value in values if len(value) < LEAST})


def _check(body: Json, long: set[str], short: set[str]) -> None:
    """Raise where a text has one of `long` in it, or is one of `short`."""
    texts = list(_texts(body, ""))
    found = _found("\n".join(text for _, text in texts), long)  # at once: there may be many
    for where, text in texts if found or short else ():
        if text.strip() in short or (found and _found(text, found)):
            raise invalid(
                "1400-400",
                f"{where}: holds the password of a connection, and everybody is shown it. "
                "Write the password into auth.params.password, and nowhere else.",
            )


def _found(text: str, forms: set[str]) -> set[str]:
    """Those of `forms` that stand in a text, however it is read."""
    readings = _readings(text)
    return {form for form in forms if any(form in each for each in readings)}


def opened(state: AppState, resource: Resource | None) -> Json:
    """The secrets of a resource; none where another key sealed them: they are to be given again."""
    try:
        found: Json = (
            state.secret_store.open(resource.secret) if resource and resource.secret else {}
        )
    except InputError:
        return {}
    return found


def _forms(secret: str, user: str) -> Iterator[str]:
    """A secret as it may be written, besides what `_readings` undoes."""
    yield secret
    yield secret[::-1]
    yield quote(secret, safe="")
    for text in (secret, f"{user}:{secret}"):
        yield b64encode(text.encode("utf-8", "replace")).decode().rstrip("=")
    encoded = secret.encode("utf-8", "replace")
    yield encoded.hex()
    yield b32encode(encoded).decode().rstrip("=")
    for before in range(3):  # within other text: what neither side of it has a part in
        inner = b64encode(b"\0" * before + encoded)[(0, 2, 3)[before] :]
        yield inner[: len(inner) - (0, 3, 2)[(before + len(encoded)) % 3]].decode()


def _readings(text: str) -> set[str]:
    """What a text may be read as: as it is, and with what hides a part of it undone."""
    read = {text}
    if "%" in text:
        once = unquote(text)
        read |= {once, unquote(once)}
    if "&" in text:
        read.add(unescape(text))
    if "\\" in text:
        read.add(_ESCAPED.sub(lambda found: chr(int(found[1], 16)), text))
    if not text.isprintable():
        read.add("".join(filter(str.isprintable, text)))
    if "-" in text or "_" in text:
        read.add(text.replace("-", "+").replace("_", "/"))
    read.add("".join(text.lower().translate(_BETWEEN).split()))
    return read


_ESCAPED = re2.compile(r"\\u([0-9a-fA-F]{4})")
_BETWEEN = {ord(sign): None for sign in ":-"}  # what may stand between the digits of bytes


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """All texts of a body, its keys too, each with the place where it stands.

    A key is part of the place only if it is one of a few: it may be the secret itself.
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
            yield from _texts(each, where or (key if key in _NAMED else "body"))


_NAMED = ("name", "description", "tags", "auth", "data", "params", "title", "options", "labels")
