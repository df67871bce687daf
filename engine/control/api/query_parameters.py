"""Which parameters an address may have: those that its route declares, and no others.

One rule for all routes: what a parameter is called stands in the route's signature or, for lists
that read their parameters themselves, in its `openapi_extra`. What is not known is never dropped:
a list without the filter that a client meant is a list of other things.
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
    """Raise for a parameter that the route of a request has not, or that may be given only once.

    Asynchronous, and so without a thread: /healthz waits for none.
    """
    given = request.query_params.multi_items()
    if not given:
        return
    route = request.scope.get("route")
    declared = declared_by(route) if isinstance(route, APIRoute) else {}
    if len(given) > MOST:
        raise invalid("1400-400", f"The request has more than {MOST} parameters.")
    any_case = {name.lower(): name for name in declared}
    seen = set[str]()
    for name, _ in given:
        known = name if name in declared else any_case.get(name.lower()) if _reads(route) else None
        if known is None:
            shown = ", ".join(declared) or "none"
            raise invalid(
                "1451-400",
                f"Invalid params {cut(name)} provided in query params. Allowed: {shown}.",
            )
        if known in seen and not declared[known]:
            raise invalid("1400-400", f"The parameter {known} is given twice.")
        seen.add(known)


def declared_by(route: APIRoute) -> dict[str, bool]:
    """The parameters of a route, and whether each may be given more than once."""
    found = dict.fromkeys(_signature(route.dependant), False)
    for each in (route.openapi_extra or {}).get("parameters", []):
        if each["in"] == "query":
            found[each["name"]] = each["schema"].get("type") == "array" or each["name"] in _JOINED
    return found


def _signature(dependant: Dependant) -> Iterator[str]:
    """The parameters that a function has, or one that it depends on."""
    yield from (each.alias for each in dependant.query_params)
    for each in dependant.dependencies:
        yield from _signature(each)


_JOINED = ("orderby", "orderBy")  # several are one order


def _reads(route: object) -> bool:
    """Whether a route reads its parameters itself, in any case."""
    extra = (route.openapi_extra or {}) if isinstance(route, APIRoute) else {}
    return any(each["in"] == "query" for each in extra.get("parameters", []))
