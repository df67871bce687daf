"""Flow Service's specifications of Mixpanel, of the data lake, and of flows between them.

Their schemas are those of the fields in `config/fields.py`; schedules have the rules of
Adobe's RestStorageToAEP.
"""

from typing import Any

from fastapi import APIRouter, Request

from engine.config.fields import ACCOUNT, LEAST_MINUTES, OPTIONS, SCHEDULES, SOURCE, schema_of
from engine.control.api.listing import documented, page
from engine.control.api.openapi_schemas import BODIES, MAPPING
from engine.control.api.serializers import single
from engine.control.run_payload import PROGRAM, signed
from engine.control.validation import AUTH_SPECS, DATA_LAKE, FLOW_SPEC, MIXPANEL, PROVIDER
from engine.errors import NotFound

Json = dict[str, Any]

router = APIRouter(tags=["Specifications"])

_DRAFT = "http://json-schema.org/draft-07/schema#"
_BORN = 1640995200000  # ms since the epoch: before every resource


def _draft(schema: Json, **more: Any) -> Json:
    return {"$schema": _DRAFT, **schema, **more}


def _item(id_: str, name: str, **more: Any) -> Json:
    return {
        "id": id_,
        **signed(_BORN, _BORN),
        "imsOrgId": PROGRAM,
        "name": name,
        "providerId": PROVIDER,
        "version": "1.0",
        **more,
    }


_SCHEDULE_RULES = {
    "if": {"properties": {"frequency": {"const": "once"}}},
    "then": {"allOf": [{"not": {"required": [key]}} for key in ("interval", "backfill")]},
    "else": {
        "required": ["interval"],
        "if": {"properties": {"frequency": {"const": "minute"}}},
        "then": {"properties": {"interval": {"minimum": LEAST_MINUTES}}},
        "else": {"properties": {"interval": {"minimum": 1}}},
    },
}

CONNECTION_SPECS = [
    *(
        _item(
            id_,
            "mixpanel",
            authSpec=[
                {"name": name, "type": name.replace(" ", ""), "spec": _draft(schema_of(ACCOUNT))}
                for name in AUTH_SPECS
            ],
            exploreSpec={"name": "Resource", "type": "Resource"},
            sourceSpec={"name": "mixpanel", "type": "Source", "spec": _draft(schema_of(SOURCE))},
            attributes={"category": "analytics", "isSource": True},
        )
        for id_ in MIXPANEL
    ),
    _item(
        DATA_LAKE,
        "datalake",  # in the case that clients look it up by
        targetSpec={
            "name": "dataLake",
            "type": "Target",
            "spec": _draft(BODIES["post targetConnections"]["properties"]["params"]),
        },
        attributes={"isSource": False},
    ),
]
FLOW_SPECS = [
    _item(
        FLOW_SPEC,
        "RestStorageToAEP",
        sourceConnectionSpecIds=list(MIXPANEL),
        targetConnectionSpecIds=[DATA_LAKE],
        optionSpec={"name": "OptionSpec", "spec": _draft(schema_of(OPTIONS))},
        transformationSpecs=[{"name": "Mapping", "spec": _draft(MAPPING)}],
        scheduleSpec={
            "name": "PeriodicSchedule",
            "type": "Periodic",
            "spec": _draft(schema_of(SCHEDULES), **_SCHEDULE_RULES),
        },
        attributes={"notification": {"category": "sources", "flowRun": {"enabled": True}}},
    )
]


def _add_routes(kind: str, items: list[Json], description: str) -> None:
    @router.get(f"/{kind}", openapi_extra=documented(), description=description)
    def all_(request: Request) -> Json:
        return page(request, kind, items)

    @router.get(
        f"/{kind}/{{id}}",
        description="Show a specification by its id, or by its name if no other has it.",
    )
    def one(id: str) -> Json:  # noqa: A002 - its name in the path
        found = [item for item in items if item["id"] == id]
        by_name = [item for item in items if item["name"].lower() == id.lower()]
        if found or len(by_name) == 1:
            return single(*found or by_name)
        raise NotFound(kind, id)


_add_routes(
    "connectionSpecs",
    CONNECTION_SPECS,
    "List the specifications of connections: Mixpanel, under two ids, and the data lake.",
)
_add_routes(
    "flowSpecs",
    FLOW_SPECS,
    "List the specifications of flows: from Mixpanel to a dataset, on a schedule.",
)
