"""POST, GET, PATCH and DELETE of resources, the same for every kind that Flow Service has."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response

from engine.catalog.resources import Json, Resource, new
from engine.control import to_flow
from engine.control.api import listing
from engine.control.api.app_state import AppState, State
from engine.control.api.etag_checks import Bound, Preconditions, bound_to, needed
from engine.control.api.flow_checks import check_users
from engine.control.api.json_patch import patched, replaces
from engine.control.api.problems import invalid
from engine.control.api.serializers import READ_ONLY, item, made, quoted, single

Document = Annotated[dict[str, Any], Body()]
Operations = Annotated[list[dict[str, Any]], Body()]


@dataclass(frozen=True, slots=True)
class ResourceRoutes:
    """The routes of one kind of resource, and what differs between kinds.

    kind       the last part of its path
    fields     top-level fields of a body that a patch may change
    check      raises for a resource that cannot be stored
    serialize  returns a resource as an item
    encrypt    (state, body, resource before) -> the body without secrets, and these, encrypted;
               raises for a body that no client may send
    """

    kind: str
    fields: tuple[str, ...]
    check: Callable[[AppState, Resource], None]
    serialize: Callable[[AppState, Resource], Json]
    encrypt: Callable[[AppState, Json, Resource | None], tuple[Json, bytes | None]]

    def router(self) -> APIRouter:
        """Return a router with all five routes."""
        router = APIRouter(prefix=f"/{self.kind}", tags=[self.kind])
        router.post("", status_code=201)(self.create)
        router.get("", openapi_extra=listing.documented())(self.list_all)
        router.get("/{id}")(self.get)
        router.patch("/{id}", openapi_extra=bound_to(required=True))(self.change)
        router.delete(
            "/{id}", status_code=204, response_class=Response,
            openapi_extra=bound_to(required=False),
        )(self.delete)  # fmt: skip
        return router

    def create(self, state: State, body: Document) -> Json:
        """Create a resource."""
        stored, secret = self.encrypt(state, body, None)
        stored = {name: value for name, value in stored.items() if name not in READ_ONLY}
        _check_text_fields(stored)
        resource = new(self.kind, stored, state.now(), secret=secret)
        with state.making:
            self.check(state, resource)
            state.resources.create(resource, to_flow.uses(stored, state.resources))
        return made(resource)

    def list_all(self, state: State, request: Request) -> Json:
        """List the resources."""
        by_id = {resource.id: resource for resource in state.resources.all(self.kind)}
        items = [item(resource) for resource in by_id.values()]
        return listing.page(
            request, self.kind, items, lambda each: self.serialize(state, by_id[each["id"]])
        )

    def get(self, state: State, id: str, response: Response) -> Json:  # noqa: A002 - its name in the path
        """Return one resource."""
        resource = state.resources.get(self.kind, id)
        response.headers["ETag"] = quoted(resource.etag)
        return single(self.serialize(state, resource))

    def change(self, state: State, id: str, operations: Operations, bound: Bound) -> Json:  # noqa: A002 - its name in the path
        """Change a resource by a JSON Patch."""

        def edit(before: Resource) -> Resource:
            body = patched(before.body, operations, self.fields)
            _check_text_fields(body)
            if replaces(operations, "/auth/params"):
                body = _with_host(body, before.body)
            body, secret = self.encrypt(state, body, before)
            after = replace(before, body=body, secret=secret)
            self.check(state, after)
            check_users(state, after)
            return after

        return made(changed(state, self.kind, id, needed(bound), edit))

    def delete(self, state: State, id: str, bound: Bound) -> None:  # noqa: A002 - its name in the path
        """Delete a resource."""

        def check(resource: Resource) -> None:
            bound.check(resource)
            if not to_flow.is_left(resource) or resource.origin in state.files:
                _check_own(resource)

        state.resources.delete(self.kind, id, check)


def changed(
    state: AppState,
    kind: str,
    id_: str,
    bound: Preconditions,
    edit: Callable[[Resource], Resource],
) -> Resource:
    """Store the result of `edit` and return it. Resources of a file are changed there alone.

    EtagMismatch if the version is not one that `bound` allows, or if another writer changed it
    while `edit` ran: `edit` may read tables, and no writer waits for that.
    """
    before = state.resources.get(kind, id_)
    bound.check(before)
    _check_own(before)
    after = edit(before)
    uses = to_flow.uses(after.body, state.resources)
    return state.resources.change(kind, id_, before.etag, state.now(), lambda _: (after, uses))


def _check_own(resource: Resource) -> None:
    if resource.origin is not None:
        raise invalid(
            "1400-400",
            f"This is kept by the configuration file {resource.origin}: "
            "change that, and apply it again.",
        )


def _check_text_fields(body: Json) -> None:
    for name in ("name", "description"):
        if not isinstance(body.get(name, ""), str):
            raise invalid("1400-400", f"{name}: must be a text.")


def _with_host(body: Json, before: Json) -> Json:
    """Add the host from before to new credentials without one, as the tutorial's are."""
    auth, host = body.get("auth"), before.get("auth", {}).get("params", {}).get("host")
    if not isinstance(auth, dict) or not isinstance(auth.get("params"), dict) or host is None:
        return body
    return body | {"auth": auth | {"params": {"host": host} | auth["params"]}}
