"""Sandbox Management's calls, which clients make at their start: there is one sandbox, `prod`."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from engine.control.run_payload import PROGRAM
from engine.errors import NotFound

Json = dict[str, Any]

router = APIRouter(prefix="/sandboxes", tags=["Sandboxes"])

PROD: Json = {
    "name": "prod",
    "title": "Production",
    "state": "active",
    "type": "production",
    "region": "VA7",
    "isDefault": True,
    "eTag": 1,
    "createdDate": "2022-01-01 00:00:00",
    "lastModifiedDate": "2022-01-01 00:00:00",
    "createdBy": PROGRAM,
    "lastModifiedBy": PROGRAM,
}


@router.get("")
def list_sandboxes(
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Json:
    """List the one sandbox."""
    shown = [PROD][offset : offset + limit]
    return {"sandboxes": shown, "_page": {"limit": limit, "count": len(shown)}, "_links": {}}


@router.get("/{sandbox_name}")
def get_sandbox(sandbox_name: str) -> Json:
    """Return a sandbox by its name."""
    if sandbox_name != PROD["name"]:
        raise NotFound("sandboxes", sandbox_name)
    return PROD
