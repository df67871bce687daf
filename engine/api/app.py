"""The routes together, and who may call them."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from engine.api.plane import Plane
from engine.api.problems import Problem, problem_of
from engine.errors import EtlError

FLOWSERVICE = "/data/foundation/flowservice"
CONVERSION = "/data/foundation/conversion"
REGISTRY = "/data/foundation/schemaregistry"
CATALOG = "/data/foundation/catalog"
EXPORT = "/data/foundation/export"


def app_of(plane: Plane) -> FastAPI:
    """The whole application."""
    app = FastAPI(title="mixpanel-etl", version="1")
    app.state.plane = plane

    @app.exception_handler(Problem)
    def _problem(request: Request, problem: Problem) -> JSONResponse:
        return JSONResponse(problem.body(), problem.status)

    @app.exception_handler(EtlError)
    def _error(request: Request, error: EtlError) -> JSONResponse:
        problem = problem_of(error)
        return JSONResponse(problem.body(), problem.status)

    return app
