"""A resource as an item of an answer, in the form that the tutorial's examples have."""

from engine.catalog.resources import Json, Resource
from engine.control.run_payload import PROGRAM, signed
from engine.control.validation import ENABLED


def item(resource: Resource, **more: object) -> Json:
    """What a client sees of a resource: its own body, and what is kept beside it."""
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
"""What an item has beside its body: it says so of itself, and no client can."""


def single(shown: Json) -> Json:
    """The answer for one item."""
    return {"items": [shown]}


def made(resource: Resource) -> Json:
    """The answer to whoever made or changed a resource."""
    return {"id": resource.id, "etag": quoted(resource.etag)}


def quoted(etag: str) -> str:
    """An etag as answers and headers have it: its quotes are part of it."""
    return f'"{etag}"'
