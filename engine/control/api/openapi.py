"""/openapi.json, and /docs: the page docs.html, which loads nothing from another host.

A browser cannot send the token by itself: the 401 to it is this page, which has a field for the
token, fetches /openapi.json with it and shows the document. The page holds no secret.
"""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse

from engine.control.api.openapi_schemas import BODIES, RESPONSES

DOCS, OPENAPI = "/docs", "/openapi.json"
OPEN = ("/healthz",)  # paths that need no token

_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "required": ["type", "title", "status", "report", "errorMessage", "errorDetails"],
    "properties": {
        "type": _TEXT, "title": _TEXT, "status": {"type": "integer"},
        "report": {"type": "object", "additionalProperties": _TEXT},
        "errorMessage": _TEXT, "errorDetails": _TEXT,
    },
}  # fmt: skip
_PROBLEMS = {
    "400": "The request can be mended: errorMessage says how",
    "401": "The token is missing or wrong",
    "403": "The Host header is no name of this daemon",
    "404": "There is no such resource",
    "405": "There is no such method here",
    "406": "The Accept header names a form or a version that is not here",
    "413": "The request body is too large",
    "414": "The target of the request is too long",
    "415": "The request body has an encoding or a charset that is not read here",
}
_STALE = "The resource was changed meanwhile"
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}

_PAGE = Path(__file__).with_name("docs.html").read_text("utf-8")


def describe(app: FastAPI) -> dict[str, Any]:
    """Return FastAPI's OpenAPI document with the API's own errors and its authentication."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    parts = document.setdefault("components", {})
    schemas = parts.get("schemas", {})
    parts["schemas"] = {name: each for name, each in schemas.items() if "Validation" not in name}
    parts["schemas"]["Error"] = _ERROR
    parts["securitySchemes"] = _SCHEMES
    document["security"] = [{name: []} for name in _SCHEMES]
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            _describe(call, f"{method} {path.rpartition('/')[2]}")
            if path in OPEN:
                call["security"] = []
    return document


def _describe(call: dict[str, Any], name: str) -> None:
    """Complete a call by `name`, its method and the last part of its path: `get {id}`."""
    answers = call["responses"]
    answers.pop("422", None)
    if description := call.get("description"):
        call["summary"] = description.partition(".")[0]  # instead of the function's name
    for status, text in _PROBLEMS.items():
        answers.setdefault(status, {"description": text})
    for parameter in call.get("parameters", []):
        if parameter["name"] == "if-match":
            answers["412"] = {"description": _STALE}
    for status, answer in answers.items():
        if status >= "400":
            error = {"schema": {"$ref": "#/components/schemas/Error"}}
            answer.setdefault("content", {"application/json": error})
        elif name in RESPONSES and status < "300":
            answer["content"] = {"application/json": {"schema": RESPONSES[name]}}
    if name in BODIES:
        call["requestBody"]["content"]["application/json"]["schema"] = BODIES[name]


def _hash(tag: str) -> str:
    """Return the hash of the text inside a tag of the page, as a content security policy has it."""
    text = _PAGE.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


_POLICY = (
    f"default-src 'none'; script-src {_hash('script')}; style-src {_hash('style')}; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def page(status: int = 200) -> HTMLResponse:
    """Return the page; its policy allows its own script alone."""
    return HTMLResponse(_PAGE, status, {"Content-Security-Policy": _POLICY})
