"""A resource as an item of a response, in the form of the tutorial's examples."""

from engine.catalog.resources import Json, Resource
from engine.control.run_payload import PROGRAM, signed
from engine.control.validation import ENABLED


def item(resource: Resource, **more: object) -> Json:
    """Return a resource as an item: its body, its moments and its etag."""
    etag = quoted(resource.etag)
    return {
        "id": resource.id,
        **signed(resource.created_at, resource.updated_at),
        "imsOrgId": PROGRAM,
        **{"state": ENABLED} | resource.body,
        "version": etag,
        "etag": etag,
        **more,
    }


READ_ONLY = frozenset(
    {
        "id", "createdAt", "updatedAt", "createdBy", "updatedBy", "createdClient", "updatedClient",
        "sandboxId", "sandboxName", "imsOrgId", "version", "etag", "providerRefId",
        "inheritedAttributes", "runs", "lastOperation", "lastRunDetails", "state",
    }
)  # fmt: skip
"""Fields of an item that no client can set."""


def single(item: Json) -> Json:
    """Return the response for one item."""
    return {"items": [item]}


def made(resource: Resource) -> Json:
    """Return the response to a resource that was created or changed."""
    return {"id": resource.id, "etag": quoted(resource.etag)}


def quoted(etag: str) -> str:
    """Return an etag as responses and headers have it, with quotes."""
    return f'"{etag}"'
