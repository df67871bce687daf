"""Descriptors: statements of clients on the fields of a schema, as that one is an identity.

They are stored and returned, and have no effect on pulls.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from engine.catalog.resources import Resource, new
from engine.control.api import registry_lists
from engine.control.api.app_state import AppState, State
from engine.control.api.etag_checks import Bound
from engine.control.api.password_leaks import check_texts
from engine.control.api.problems import cut, invalid
from engine.control.api.schema_accept import form_of
from engine.control.api.serializers import quoted
from engine.control.run_payload import PROGRAM
from engine.control.schema_documents import Registry, schema_named
from engine.errors import InputError, NotFound
from engine.transform.schema_forms import full

Json = dict[str, Any]

_PATH = "/tenant/descriptors"
_ASSIGNED = ("@id", "imsOrg", "version", "meta:containerId")

router = APIRouter(prefix=_PATH, tags=["Descriptors"])
global_router = APIRouter(prefix="/global/descriptors", tags=["Descriptors"])

Accept = Annotated[str, Header()]


class Descriptor(BaseModel):
    """A descriptor of a schema, or on a field of it, such as `/_extconndev/distinct_id`."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(alias="@type", pattern="^xdm:[A-Za-z]+$")]
    sourceSchema: Annotated[str, Field(alias="xdm:sourceSchema")]  # noqa: N815  # the registry's name
    sourceProperty: Annotated[str | list[str] | None, Field(alias="xdm:sourceProperty")] = None  # noqa: N815  # as above


@router.post("", status_code=201)
def create_descriptor(state: State, body: Descriptor) -> Json:
    """Create a descriptor of a schema."""
    id_ = secrets.token_hex(24)
    made = new("descriptors", _checked(state, body, id_), state.now(), id_=id_)
    state.resources.create(made)
    return made.body


@router.get("", openapi_extra=registry_lists.PARAMETERS)
def list_descriptors(state: State, request: Request, accept: Accept = "") -> Json:
    """List the descriptors by their types; with `xdm-v2` in `Accept` as other lists are."""
    form = form_of(accept)

    def shown(item: Json) -> Any:
        if form.has("link"):
            return f"{_PATH}/{item['@id']}"
        return item["@id"] if form.has("id") else item

    found = [each.body for each in state.resources.all("descriptors")]
    return _listed(request, _PATH, found, shown, paged=form.has("v2"))


@router.get("/{descriptor_id}")
def get_descriptor(state: State, descriptor_id: str, response: Response) -> Json:
    """Return one descriptor."""
    found = state.resources.get("descriptors", descriptor_id)
    response.headers["ETag"] = quoted(found.etag)
    return found.body


@router.put("/{descriptor_id}")
def replace_descriptor(state: State, descriptor_id: str, body: Descriptor, bound: Bound) -> Json:
    """Replace a descriptor."""
    state.resources.get("descriptors", descriptor_id)
    document = _checked(state, body, descriptor_id)

    def edit(now: Resource) -> tuple[Resource, tuple[str, ...]]:
        bound.check(now)
        return replace(now, body=document), ()

    return state.resources.change("descriptors", descriptor_id, None, state.now(), edit).body


@router.delete("/{descriptor_id}", status_code=204)
def delete_descriptor(state: State, descriptor_id: str, bound: Bound) -> Response:
    """Delete a descriptor."""
    state.resources.delete("descriptors", descriptor_id, bound.check)
    return Response(status_code=204)


@global_router.get("", openapi_extra=registry_lists.PARAMETERS)
def list_global_descriptors(request: Request, accept: Accept = "") -> Json:
    """List the descriptors of XDM's own schemas: there are none."""
    form = form_of(accept)
    return _listed(request, "/global/descriptors", [], lambda item: item, paged=form.has("v2"))


def _listed(
    request: Request, path: str, found: list[Json], shown: Callable[[Json], Any], *, paged: bool
) -> Json:
    whole = registry_lists.page(request, path, found)
    if paged:
        return whole | {"results": [shown(each) for each in whole["results"]]}
    by_type: Json = {}
    for each in whole["results"]:
        by_type.setdefault(each["@type"], []).append(shown(each))
    return by_type


def _checked(state: AppState, body: Descriptor, id_: str) -> Json:
    """Return a descriptor as it is stored; Problem unless its schema has what it names."""
    try:
        schema = schema_named(state.resources, body.sourceSchema)
    except NotFound:
        raise InputError(
            f"xdm:sourceSchema: there is no schema {cut(body.sourceSchema)}."
        ) from None
    registry = Registry(state.resources)
    whole = registry.checked(lambda: full(schema.body, registry.document))
    paths = body.sourceProperty
    for path in [paths] if isinstance(paths, str) else paths or ():
        if not _has(whole, path):
            raise invalid("1400-400", f"xdm:sourceProperty: the schema has no field {cut(path)}.")
    document = body.model_dump(by_alias=True, exclude_unset=True)
    check_texts(state, document)
    sent = {key: value for key, value in document.items() if key not in _ASSIGNED}
    assigned = {"imsOrg": PROGRAM, "version": "1", "meta:containerId": "tenant"}
    return {"@id": id_, "xdm:sourceVersion": 1} | sent | assigned


def _has(whole: Json, path: str) -> bool:
    """Return whether a full form has a field at `/_extconndev/city`, or at `/list[*]/city`."""
    node: Any = whole
    for name in path.strip("/").split("/"):
        if name in ("properties", "items"):  # as a JSON pointer has it
            continue
        node = (node.get("properties") or {}).get(name.removesuffix("[*]"))
        while isinstance(node, dict) and name.endswith("[*]") and "items" in node:
            node = node["items"]
        if not isinstance(node, dict):
            return False
    return True
