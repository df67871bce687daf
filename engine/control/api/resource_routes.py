"""A collection of resources: POST, GET, PATCH and DELETE, the same for all of Flow Service's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response

from engine.catalog.resources import Json, Resource, new
from engine.control import to_flow
from engine.control.api import listing
from engine.control.api.app_state import AppState, State
from engine.control.api.etag_checks import Bound, Preconditions, bound_to, needed
from engine.control.api.fit import check_users
from engine.control.api.json_patch import patched, replaces
from engine.control.api.problems import invalid
from engine.control.api.serializers import READ_ONLY, item, made, quoted, single

Document = Annotated[dict[str, Any], Body()]
Operations = Annotated[list[dict[str, Any]], Body()]


@dataclass(frozen=True, slots=True)
class Collection:
    """What is its own of a collection.

    kind    the last part of its path
    fields  what of a body a patch may change
    check   raises for what cannot be kept
    show    a resource as an item
    seal    (state, body, what was before) -> the body without secrets, and these, encrypted;
            raises for what nobody may send
    """

    kind: str
    fields: tuple[str, ...]
    check: Callable[[AppState, Resource], None]
    show: Callable[[AppState, Resource], Json]
    seal: Callable[[AppState, Json, Resource | None], tuple[Json, bytes | None]]


def router_of(collection: Collection) -> APIRouter:
    """Its routes."""
    kind, router = collection.kind, APIRouter(prefix=f"/{collection.kind}", tags=[collection.kind])

    @router.post("", status_code=201)
    def create(state: State, body: Document) -> Json:
        """Make one."""
        sealed, secret = collection.seal(state, body, None)
        own = {name: value for name, value in sealed.items() if name not in READ_ONLY}
        _check_texts(own)
        resource = new(kind, own, state.now(), secret=secret)
        with state.making:
            collection.check(state, resource)
            state.resources.create(resource, to_flow.uses(own, state.resources))
        return made(resource)

    @router.get("", openapi_extra=listing.documented())
    def all_(state: State, request: Request) -> Json:
        """List them."""
        found = {each.id: each for each in state.resources.all(kind)}
        items = [item(each) for each in found.values()]
        return listing.page(
            request, kind, items, lambda each: collection.show(state, found[each["id"]])
        )

    @router.get("/{id}")
    def one(state: State, id: str, response: Response) -> Json:  # noqa: A002 - its name in the path
        """Show one."""
        resource = state.resources.get(kind, id)
        response.headers["ETag"] = quoted(resource.etag)
        return single(collection.show(state, resource))

    @router.patch("/{id}", openapi_extra=bound_to(required=True))
    def change(state: State, id: str, operations: Operations, bound: Bound) -> Json:  # noqa: A002 - its name in the path
        """Change one, by a JSON Patch."""

        def edit(before: Resource) -> Resource:
            own = patched(before.body, operations, collection.fields)
            _check_texts(own)
            if replaces(operations, "/auth/params"):
                own = _with_host(own, before.body)
            own, secret = collection.seal(state, own, before)
            after = replace(before, body=own, secret=secret)
            collection.check(state, after)
            check_users(state, after)
            return after

        return made(changed(state, kind, id, needed(bound), edit))

    @router.delete(
        "/{id}", status_code=204, response_class=Response, openapi_extra=bound_to(required=False)
    )
    def remove(state: State, id: str, bound: Bound) -> None:  # noqa: A002 - its name in the path
        """Delete one."""

        def check(resource: Resource) -> None:
            bound.check(resource)
            if not to_flow.is_left(resource) or resource.origin in state.files:
                _own(resource)

        state.resources.delete(kind, id, check)

    return router


def changed(
    state: AppState,
    kind: str,
    id_: str,
    bound: Preconditions,
    edit: Callable[[Resource], Resource],
) -> Resource:
    """A resource once `edit` has changed it; what was applied from a file stays that file's.

    Stale if there is another version than it is `bound` to before it, or another one after it:
    `edit` may look at tables, and no writer waits for that.
    """
    before = state.resources.get(kind, id_)
    bound.check(before)
    _own(before)
    after = edit(before)
    uses = to_flow.uses(after.body, state.resources)
    return state.resources.change(kind, id_, before.etag, state.now(), lambda _: (after, uses))


def _own(resource: Resource) -> None:
    if resource.origin is not None:
        raise invalid(
            "1400-400",
            f"This is kept by the configuration file {resource.origin}: "
            "change that, and apply it again.",
        )


def _check_texts(body: Json) -> None:
    for name in ("name", "description"):
        if not isinstance(body.get(name, ""), str):
            raise invalid("1400-400", f"{name}: must be a text.")


def _with_host(body: Json, before: Json) -> Json:
    """New credentials that name no host are for the one from before: the tutorial's have none."""
    auth, host = body.get("auth"), before.get("auth", {}).get("params", {}).get("host")
    if not isinstance(auth, dict) or not isinstance(auth.get("params"), dict) or host is None:
        return body
    return body | {"auth": auth | {"params": {"host": host} | auth["params"]}}
