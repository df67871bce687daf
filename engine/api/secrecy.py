"""No text that everybody is shown holds the password of a connection (P7)."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from engine.api.plane import Plane
from engine.api.problems import invalid
from engine.bodies import MASK
from engine.errors import InputError
from engine.resources import Json, Resource

LEAST = 6  # characters: a shorter password stands in many a word by chance


def check_texts(plane: Plane, body: Json) -> None:
    """Raise where a text of a body, wherever in it, holds the password of any connection, unless
    that is shorter than LEAST.
    """
    for connection in plane.resources.all("connections"):
        params = (connection.body.get("auth") or {}).get("params") or {}
        secret = {
            name: value
            for name, value in opened(plane, connection).items()
            if len(str(value)) >= LEAST
        }
        check_own_texts(body, secret, str(params.get("username", "")))


def check_own_texts(body: Json, secret: Json, user: str) -> None:
    """Raise where a text of a body holds one of these secrets, as it is or encoded, alone or, as
    for Basic authentication, after the name of its user.

    A secret that is shorter than LEAST is only found as a whole text.
    """
    values = [str(value) for value in secret.values() if value and value != MASK]
    long = {form for value in values if len(value) >= LEAST for form in _forms(value, user)}
    short = {value for value in values if len(value) < LEAST}
    for where, text in _texts(body, ""):
        if text.strip() in short or any(form in text for form in long):
            raise invalid(
                "1400-400",
                f"{where}: holds the password of a connection, and everybody is shown it. "
                "Write the password into auth.params.password, and nowhere else.",
            )


def opened(plane: Plane, resource: Resource | None) -> Json:
    """The secrets of a resource; none where another key sealed them: they are to be given again."""
    try:
        found: Json = plane.vault.open(resource.secret) if resource and resource.secret else {}
    except InputError:
        return {}
    return found


def _forms(secret: str, user: str) -> Iterator[str]:
    """A secret as it may be written."""
    yield secret
    yield quote(secret, safe="")
    for text in (secret, f"{user}:{secret}"):
        yield b64encode(text.encode("utf-8", "replace")).decode().rstrip("=")


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
