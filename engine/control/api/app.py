"""The FastAPI application, behind the token check: routers, middleware and error handlers."""

from functools import cache, partial
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from engine import __version__
from engine.control.api import (
    batches,
    catalog_batches,
    connections,
    datasets,
    descriptors,
    explore,
    flows,
    health,
    languages,
    mapping_sets,
    registry_reports,
    runs,
    sandboxes,
    schema_registry,
    specs,
    triggers,
)
from engine.control.api.app_state import AppState
from engine.control.api.middleware import (
    BodyMiddleware,
    ChangeNotifier,
    ErrorMiddleware,
    ReadMiddleware,
)
from engine.control.api.openapi import DOCS, OPENAPI, describe, page
from engine.control.api.problems import Problem, cut, empty_body, invalid, problem_of, respond
from engine.control.api.query_parameters import check_parameters
from engine.errors import EtlError

FLOWSERVICE = "/data/foundation/flowservice"
CONVERSION = "/data/foundation/conversion"
REGISTRY = "/data/foundation/schemaregistry"
CATALOG = "/data/foundation/catalog"
EXPORT = "/data/foundation/export"
SANDBOXES = "/data/foundation/sandbox-management"

_MODULES: dict[str, tuple[Any, ...]] = {
    FLOWSERVICE: (explore, connections, flows, runs, triggers, specs),
    CONVERSION: (mapping_sets, languages),
    REGISTRY: (schema_registry, descriptors, registry_reports),
    CATALOG: (datasets, catalog_batches),
    SANDBOXES: (sandboxes,),
    EXPORT: (batches,),
    "": (health,),
}


def app_of(state: AppState) -> FastAPI:
    """Build the application; every caller that reaches it is trusted."""
    app = FastAPI(
        title="mixpanel-etl", version=__version__,
        redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None,
        dependencies=[Depends(check_parameters)],
        exception_handlers={
            Problem: _on_error, EtlError: _on_error,
            RequestValidationError: _on_invalid_request, HTTPException: _on_no_route,
        },
    )  # fmt: skip
    app.state.app_state = state
    schema_registry.store_shipped_schema(state)
    for prefix, modules in _MODULES.items():
        for module in modules:
            app.include_router(module.router, prefix=prefix)
    app.include_router(descriptors.global_router, prefix=REGISTRY)
    app.openapi = cache(partial(describe, app))  # type: ignore[method-assign]  # FastAPI documents this
    app.get(DOCS, include_in_schema=False)(lambda: page())
    app.get(OPENAPI, include_in_schema=False)(lambda: JSONResponse(app.openapi()))
    app.add_middleware(ChangeNotifier, changed=state.changed)
    app.add_middleware(BodyMiddleware)
    app.add_middleware(ReadMiddleware)
    app.add_middleware(ErrorMiddleware)  # added last, called first
    return app


async def _on_error(_: Request, error: Problem | EtlError) -> JSONResponse:
    return respond(error if isinstance(error, Problem) else problem_of(error))


async def _on_invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    """Answer 400 instead of FastAPI's 422, which Flow Service does not have."""
    first = error.errors()[0]
    if first["loc"] == ("body",) and first["input"] is None:
        return respond(empty_body())
    where = ".".join(str(part) for part in first["loc"])
    return respond(invalid("1400-400", f"{cut(where)}: {cut(first['msg'], 500)}."))


async def _on_no_route(request: Request, error: HTTPException) -> JSONResponse:
    title = "Resource not found" if error.status_code == 404 else "Invalid request"
    problem = Problem(f"1400-{error.status_code}", title, f"{error.detail}.")
    headers = dict(error.headers or {})
    if error.status_code == 405 and (methods := _methods(request)):
        headers["Allow"] = methods
    return respond(problem, headers)


def _methods(request: Request) -> str:
    """Return all methods of a path; Starlette's own header names those of one route alone."""
    path, paths = request.scope["path"], request.app.openapi()["paths"]
    segments = path.split("/")
    templates = (template for template in paths if _matches(template.split("/"), segments))
    calls = [method.upper() for method in paths.get(path) or paths.get(next(templates, ""), {})]
    return ", ".join([*calls, *(["HEAD"] if "GET" in calls else [])])


def _matches(template: list[str], segments: list[str]) -> bool:
    return len(template) == len(segments) and all(
        (each[:1] == "{" and bool(segment)) or each == segment
        for each, segment in zip(template, segments, strict=True)
    )
