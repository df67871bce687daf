"""The token check and the Host check of every request, in pure ASGI."""

import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.control.api.middleware import READS
from engine.control.api.openapi import DOCS, OPEN, page
from engine.control.api.problems import Problem, respond
from engine.control.api.request_target import normalize_target
from engine.dataset.storage.local import write_once
from engine.errors import InputError, disk_error
from engine.model.flow import Secret

FILE_NAME = "api.token"  # in the home
LOCAL = ("localhost", "127.0.0.1", "::1")


class AuthMiddleware:
    """Passes requests on that have the token, as `Authorization: Bearer` or `x-api-key`.

    With a `url` the application sees every request as one to that URL: links in its responses are
    those of the proxy with TLS, and no client sends its token in clear by following one.
    """

    def __init__(self, app: ASGIApp, token: Secret, hosts: Iterable[str], url: str = "") -> None:
        self.app = app
        self.configure(token, hosts, url)

    def configure(self, token: Secret, hosts: Iterable[str], url: str = "") -> None:
        """Replace the token, the allowed Host names and the URL."""
        self._token = token.reveal().encode()
        self._url = urlsplit(url)
        names = (*LOCAL, *hosts, self._url.hostname)
        self._hosts = {name.lower() for name in names if name}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401 or 403."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            normalize_target(scope)
        except Problem as too_long:
            await respond(too_long)(scope, receive, send)
            return
        path, headers = scope["path"].rstrip("/"), Headers(scope=scope)
        is_open = path in OPEN and scope["method"] in READS  # no body is read without a token
        if not is_open and (problem := self._problem(headers)):
            wants_page = "text/html" in headers.get("accept", "")
            schemes = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else None
            shows_page = schemes and path == DOCS and wants_page
            response = page(401) if shows_page else respond(problem, schemes)
            await response(scope, receive, send)
            return
        if self._url.netloc:
            others = [pair for pair in scope["headers"] if pair[0] != b"host"]
            scope["headers"] = [*others, (b"host", self._url.netloc.encode())]
            scope["scheme"] = self._url.scheme
        await self.app(scope, receive, send)

    def _problem(self, headers: Headers) -> Problem | None:
        """Return why a request is refused, or None."""
        if not headers.get("host"):
            detail = (
                "The Host header is missing or empty. Send the address that the daemon is called "
                "by with it, as HTTP/1.1 does."
            )
            return Problem("2120-403", "Forbidden", detail)
        if _host_name(headers["host"]) not in self._hosts:  # against DNS rebinding
            detail = (
                "The Host header is no name of this daemon. Call it by the address that it listens "
                "on, or add the name to `hosts` in its [api] table."
            )
            return Problem("2120-403", "Forbidden", detail)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        tokens = [bearer.strip()] if scheme.lower() == "bearer" else []
        tokens = [each for each in (*tokens, headers.get("x-api-key", "")) if each]
        if not tokens:
            detail = (
                "The token is either missing or empty. Please send it as `Authorization: Bearer` "
                "or as `x-api-key` and try again."
            )
            return Problem("2001-401", "Header is missing or empty", detail)
        if not any(hmac.compare_digest(each.encode(), self._token) for each in tokens):
            detail = "Invalid token provided. Please provide a valid token and try again."
            return Problem("2115-401", "Invalid token", detail)
        return None


def token_of(home: Path) -> Secret:
    """Return the token of a home; create it, in a file for its owner alone, if there is none."""
    path = home / FILE_NAME
    with disk_error(f"write {path}"):
        token = write_once(path, secrets.token_urlsafe(32)).strip()
    if not token:
        raise InputError(f"{path} is empty. Write a token into it, or delete it: one is made then.")
    return Secret(token)


def _host_name(host: str) -> str:
    """Return the name in a Host header without the port; "" if the header is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
