"""The routes together, and how failures are answered. Who may call them: see guard.py."""

from functools import cache, partial

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from engine import __version__
from engine.control.api import (
    batches,
    connections,
    datasets,
    explore,
    flows,
    health,
    languages,
    mappings,
    registry,
    runs,
    sandboxes,
    specs,
    triggers,
)
from engine.control.api.docs import DOCS, OPENAPI, describe, page
from engine.control.api.edge import (
    BodyMiddleware,
    ChangeNotifier,
    ErrorMiddleware,
    Reads,
    answer,
    empty,
)
from engine.control.api.parameters import check_parameters
from engine.control.api.plane import AppState
from engine.control.api.problems import Problem, cut, invalid, problem_of
from engine.errors import EtlError

FLOWSERVICE = "/data/foundation/flowservice"
CONVERSION = "/data/foundation/conversion"
REGISTRY = "/data/foundation/schemaregistry"
CATALOG = "/data/foundation/catalog"
EXPORT = "/data/foundation/export"
SANDBOXES = "/data/foundation/sandbox-management"


def app_of(plane: AppState) -> FastAPI:
    """The whole application, for whoever may call it."""
    app = FastAPI(
        title="mixpanel-etl", version=__version__,
        redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None,
        dependencies=[Depends(check_parameters)],
        exception_handlers={
            Problem: _problem, EtlError: _error,
            RequestValidationError: _invalid, HTTPException: _refused,
        },
    )  # fmt: skip
    app.state.plane = plane
    registry.keep_shipped(plane)
    for router in (explore.router, connections.router, flows.router, runs.router, triggers.router):
        app.include_router(router, prefix=FLOWSERVICE)
    app.include_router(specs.router, prefix=FLOWSERVICE)
    app.include_router(mappings.router, prefix=CONVERSION)
    app.include_router(languages.router, prefix=CONVERSION)
    app.include_router(registry.schemas, prefix=REGISTRY)
    app.include_router(datasets.router, prefix=CATALOG)
    app.include_router(sandboxes.router, prefix=SANDBOXES)
    app.include_router(batches.router, prefix=EXPORT)
    app.include_router(health.router)
    app.openapi = cache(partial(describe, app))  # type: ignore[method-assign]  # as FastAPI has it
    app.get(DOCS, include_in_schema=False)(lambda: page())
    app.get(OPENAPI, include_in_schema=False)(lambda: JSONResponse(app.openapi()))
    app.add_middleware(ChangeNotifier, changed=plane.changed)
    app.add_middleware(BodyMiddleware)
    app.add_middleware(Reads)
    app.add_middleware(ErrorMiddleware)  # the one added last comes first
    return app


async def _problem(_: Request, problem: Problem) -> JSONResponse:
    return answer(problem)


async def _error(_: Request, error: EtlError) -> JSONResponse:
    return answer(problem_of(error))


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Never 422: Flow Service has no such answer."""
    first = error.errors()[0]
    if first["loc"] == ("body",) and first["input"] is None:
        return answer(empty())
    where = ".".join(str(part) for part in first["loc"])
    return answer(invalid("1400-400", f"{cut(where)}: {cut(first['msg'], 500)}."))


async def _refused(request: Request, error: HTTPException) -> JSONResponse:
    """What is no route, or not with that method."""
    title = "Resource not found" if error.status_code == 404 else "Invalid request"
    problem = Problem(f"1400-{error.status_code}", title, f"{error.detail}.")
    headers = dict(error.headers or {})
    if error.status_code == 405 and (methods := _methods(request)):
        headers["Allow"] = methods
    return answer(problem, headers)


def _methods(request: Request) -> str:
    """All that the path of a request has: Starlette tells of those of one route."""
    path, paths = request.scope["path"], request.app.openapi()["paths"]
    steps = path.split("/")
    alike = (each for each in paths if _fits(each.split("/"), steps))
    calls = [method.upper() for method in paths.get(path) or paths.get(next(alike, ""), {})]
    return ", ".join([*calls, *(["HEAD"] if "GET" in calls else [])])


def _fits(template: list[str], steps: list[str]) -> bool:
    """Whether a path is one of a template's, whose steps in braces may be anything."""
    return len(template) == len(steps) and all(
        (each[:1] == "{" and bool(step)) or each == step
        for each, step in zip(template, steps, strict=True)
    )
