"""Refuse query parameters that a route does not declare, or that a request repeats.

A route declares parameters in its signature or, for lists that read their parameters themselves,
in its `openapi_extra`. An unknown parameter is never ignored: a list without the filter that a
client meant would be another list.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from engine.control.api.problems import cut, invalid

Json = dict[str, Any]
MOST = 200  # parameters of one request


async def check_parameters(request: Request) -> None:
    """Raise Problem for a parameter that its route does not declare, or that is repeated.

    Asynchronous, so that /healthz waits for no thread.
    """
    parameters = request.query_params.multi_items()
    if not parameters:
        return
    if len(parameters) > MOST:
        raise invalid("1400-400", f"The request has more than {MOST} parameters.")
    route = request.scope.get("route")
    declared = declared_by(route) if isinstance(route, APIRoute) else {}
    # A route that reads its parameters itself ignores case.
    ignores_case = isinstance(route, APIRoute) and bool(_extra(route))
    lower = {name.lower(): name for name in declared} if ignores_case else {}
    seen = set[str]()
    for name, _ in parameters:
        known = name if name in declared else lower.get(name.lower())
        if known is None:
            allowed = ", ".join(declared) or "none"
            raise invalid(
                "1451-400",
                f"Invalid params {cut(name)} provided in query params. Allowed: {allowed}.",
            )
        if known in seen and not declared[known]:
            raise invalid("1400-400", f"The parameter {known} is given twice.")
        seen.add(known)


def declared_by(route: APIRoute) -> dict[str, bool]:
    """Return the parameters of a route, and whether each may be repeated."""
    return dict.fromkeys(_signature(route.dependant), False) | {
        each["name"]: each["schema"].get("type") == "array" or each["name"] in _JOINED
        for each in _extra(route)
    }


def _signature(dependant: Dependant) -> Iterator[str]:
    yield from (each.alias for each in dependant.query_params)
    for each in dependant.dependencies:
        yield from _signature(each)


_JOINED = ("orderby", "orderBy")  # repeated ones are joined to one order


def _extra(route: APIRoute) -> list[Json]:
    extra = (route.openapi_extra or {}).get("parameters", [])
    return [each for each in extra if each["in"] == "query"]
