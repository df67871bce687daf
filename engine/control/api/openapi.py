"""/openapi.json, and the page /docs that shows it, without a resource of another host.

A browser cannot send the token by itself: it gets the page with the 401. The page asks for the
token, fetches /openapi.json with it and shows that. The page holds no secret.
"""

from base64 import b64encode
from hashlib import sha256
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

_SCRIPT = """
const $ = (tag, text, ...inner) => {
  const made = document.createElement(tag);
  made.textContent = text;
  made.append(...inner);
  return made;
};
const json = (title, value) => value
  ? [$("h4", title), $("pre", JSON.stringify(value, null, 2))] : [];
const whole = (value, all, seen = []) => {
  if (!value || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(each => whole(each, all, seen));
  if (value.$ref) {
    const name = value.$ref.split("/").pop();
    return seen.includes(name) ? name : whole(all[name], all, [...seen, name]);
  }
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, whole(v, all, seen)]));
};
const show = (api) => {
  const all = api.components?.schemas ?? {};
  const list = document.querySelector("main");
  list.replaceChildren($("p", `${api.info.title} ${api.info.version}`));
  for (const [path, calls] of Object.entries(api.paths))
    for (const [method, call] of Object.entries(calls)) {
      const rows = (call.parameters ?? []).map(each => $("li",
        `${each.name} (${each.in}${each.required ? ", required" : ""}) ${each.description ?? ""}`));
      const body = Object.values(call.requestBody?.content ?? {})[0]?.schema;
      const ends = Object.entries(call.responses ?? {}).map(
        ([status, each]) => $("li", `${status} ${each.description ?? ""}`));
      list.append($("details", "",
        $("summary", "", $("code", `${method.toUpperCase()} ${path}`),
          $("span", call.summary ?? "")),
        $("p", call.description ?? ""), $("ul", "", ...rows),
        ...json("Body", whole(body, all)), $("h4", "Answers"), $("ul", "", ...ends)));
    }
};
document.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = document.querySelector("input").value.trim();
  const said = document.querySelector("output");
  try {
    const answer = await fetch("/openapi.json", { headers: { "x-api-key": token } });
    const found = await answer.json();
    said.textContent = answer.ok ? "" : found.errorMessage;
    if (answer.ok) show(found);
  } catch (error) {
    said.textContent = `The daemon did not answer: ${error.message}`;
  }
});
"""
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
summary { padding: .3rem; cursor: pointer } summary span { margin-left: 1rem; color: #666 }
pre { background: #f4f4f4; padding: 1rem; overflow: auto } input { width: 24rem; font: inherit }
details { border-bottom: 1px solid #ddd } output { display: block; color: #b00 }
"""
_PAGE = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>mixpanel-etl</title><style>{_STYLE}</style>
<h1>mixpanel-etl</h1>
<form><label>Token <input type="password" autocomplete="off" required autofocus></label>
<button>Show</button><output></output></form>
<p>The daemon logs the path of the file that holds the token, unless its configuration gives one.
Send it as <code>Authorization: Bearer</code> or as <code>x-api-key</code>. The machine-readable
form is <code>/openapi.json</code>.</p>
<main></main><script>{_SCRIPT}</script></html>
"""


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


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


_POLICY = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def page(status: int = 200) -> HTMLResponse:
    """Return the page; its policy allows its own script alone."""
    return HTMLResponse(_PAGE, status, {"Content-Security-Policy": _POLICY})
