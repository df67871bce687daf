"""Who may call: those that know the token, under a name that is ours. Pure ASGI; knows no route."""

import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.control.api.middleware import READS, answer, straighten
from engine.control.api.openapi import DOCS, OPEN, page
from engine.control.api.problems import Problem
from engine.dataset.storage.local import keep
from engine.errors import InputError, disk_error
from engine.model.flow import Secret

NAME = "api.token"
LOCAL = ("localhost", "127.0.0.1", "::1")


class AuthMiddleware:
    """Lets in who has the token, as `Authorization: Bearer` or `x-api-key`.

    With a `url` the application sees every request as one to that: the addresses in its answers
    are those of the proxy that encrypts, and no client sends its token in clear to follow one.
    """

    def __init__(self, app: ASGIApp, token: Secret, hosts: Iterable[str], url: str = "") -> None:
        self._app = app
        self.admit(token, hosts, url)

    def admit(self, token: Secret, hosts: Iterable[str], url: str = "") -> None:
        """Let others in from now on."""
        self._token = token.reveal().encode()
        self._url = urlsplit(url)
        names = (*LOCAL, *hosts, self._url.hostname)
        self._hosts = {name.lower() for name in names if name}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401 or 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            straighten(scope)
        except Problem as too_long:
            await answer(too_long)(scope, receive, send)
            return
        path, headers = scope["path"].rstrip("/"), Headers(scope=scope)
        is_open = path in OPEN and scope["method"] in READS  # nobody without a token sends a body
        if not is_open and (problem := self._problem(headers)):
            wants_page = "text/html" in headers.get("accept", "")
            how = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else None
            shown = page(401) if how and path == DOCS and wants_page else answer(problem, how)
            await shown(scope, receive, send)
            return
        if self._url.netloc:
            others = [pair for pair in scope["headers"] if pair[0] != b"host"]
            scope["headers"] = [*others, (b"host", self._url.netloc.encode())]
            scope["scheme"] = self._url.scheme
        await self._app(scope, receive, send)

    def _problem(self, headers: Headers) -> Problem | None:
        """What is wrong with who calls."""
        if not headers.get("host"):
            detail = (
                "The Host header is missing or empty. Send the address that the daemon is called "
                "by with it, as HTTP/1.1 does."
            )
            return Problem("2120-403", "Forbidden", detail)
        if _name(headers["host"]) not in self._hosts:  # DNS rebinding: a browser's victim
            detail = (
                "The Host header is no name of this daemon. Call it by the address that it listens "
                "on, or add the name to `hosts` in its [api] table."
            )
            return Problem("2120-403", "Forbidden", detail)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = [bearer.strip()] if scheme.lower() == "bearer" else []
        given = [each for each in (*given, headers.get("x-api-key", "")) if each]
        if not given:
            detail = (
                "The token is either missing or empty. Please send it as `Authorization: Bearer` "
                "or as `x-api-key` and try again."
            )
            return Problem("2001-401", "Header is missing or empty", detail)
        if not any(hmac.compare_digest(each.encode(), self._token) for each in given):
            detail = "Invalid token provided. Please provide a valid token and try again."
            return Problem("2115-401", "Invalid token", detail)
        return None


def token_of(home: Path) -> Secret:
    """The token of a home; made there, in a file of its owner's alone, where none is yet."""
    path = home / NAME
    with disk_error(f"write {path}"):
        token = keep(path, secrets.token_urlsafe(32)).strip()
    if not token:
        raise InputError(f"{path} is empty. Write a token into it, or delete it: one is made then.")
    return Secret(token)


def _name(host: str) -> str:
    """The name in a Host header, without the port; empty if it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
