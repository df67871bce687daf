"""What can be connected and how it flows: Flow Service's specifications, as far as they are ours.

The flow specification's rules are those of Adobe's RestStorageToAEP.
"""

from typing import Any

from fastapi import APIRouter, Request

from engine.control.api.items import single
from engine.control.api.listing import documented, page
from engine.control.run_payload import PROGRAM, signed
from engine.control.validation import AUTH_SPECS, DATA_LAKE, FLOW_SPEC, MIXPANEL, PROVIDER
from engine.errors import NotFound
from engine.model.flow import FREQUENCIES

Json = dict[str, Any]

router = APIRouter(tags=["Specifications"])

_DRAFT = "http://json-schema.org/draft-07/schema#"
_BORN = 1640995200000  # ms; they are older than whatever was made here


def _object(properties: Json, required: list[str], **more: Any) -> Json:
    return {
        "$schema": _DRAFT, "type": "object", "properties": properties, "required": required, **more
    }  # fmt: skip


def _text(description: str, **more: Any) -> Json:
    return {"type": "string", "description": description, **more}


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


_CREDENTIALS = _object(
    {
        "host": _text(
            "The address of Mixpanel's raw export, https://data.mixpanel.com if left out"
        ),
        "username": _text("The name of a service account"),
        "password": _text("The secret of the service account", format="password"),
    },
    ["username", "password"],
)
_PROJECT = _object(
    {
        "projectId": _text("The number of the project"),
        "timezone": _text("The project's time zone, by its IANA or its Windows name"),
    },
    ["projectId"],
)
_DATASET = _object({"dataSetId": _text("The id of the dataset")}, ["dataSetId"])
_SCHEDULE = _object(
    {
        "startTime": {"type": "integer", "description": "Seconds since 1970; may be past"},
        "frequency": {"type": "string", "enum": list(FREQUENCIES)},
        "interval": {"type": "integer"},
        "backfill": {"type": "boolean", "default": True},
    },
    ["startTime", "frequency"],
    **{
        "if": {"properties": {"frequency": {"const": "once"}}},
        "then": {"allOf": [{"not": {"required": [key]}} for key in ("interval", "backfill")]},
        "else": {
            "required": ["interval"],
            "if": {"properties": {"frequency": {"const": "minute"}}},
            "then": {"properties": {"interval": {"minimum": 15}}},
            "else": {"properties": {"interval": {"minimum": 1}}},
        },
    },
)
_OPTIONS = _object(
    {
        "errorDiagnosticsEnabled": {"type": "boolean", "default": False},
        "partialIngestionPercent": {
            "type": "number",
            "description": "The share of rows that may be rejected before a run fails",
            "exclusiveMinimum": 0,
        },
    },
    [],
)
_MAPPING = _object(
    {"mappingId": _text("A mapping set"), "mappingVersion": _text("0 for the first")}, ["mappingId"]
)

CONNECTION_SPECS = [
    *(
        _item(
            id_,
            "mixpanel",
            authSpec=[
                {"name": name, "type": name.replace(" ", ""), "spec": _CREDENTIALS}
                for name in AUTH_SPECS
            ],
            exploreSpec={"name": "Resource", "type": "Resource"},
            sourceSpec={"name": "mixpanel", "type": "Source", "spec": _PROJECT},
            attributes={"category": "analytics", "isSource": True},
        )
        for id_ in MIXPANEL
    ),
    _item(
        DATA_LAKE,
        "datalake",  # as clients look it up, with its case
        targetSpec={"name": "dataLake", "type": "Target", "spec": _DATASET},
        attributes={"isSource": False},
    ),
]
FLOW_SPECS = [
    _item(
        FLOW_SPEC,
        "RestStorageToAEP",
        sourceConnectionSpecIds=list(MIXPANEL),
        targetConnectionSpecIds=[DATA_LAKE],
        optionSpec={"name": "OptionSpec", "spec": _OPTIONS},
        transformationSpecs=[{"name": "Mapping", "spec": _MAPPING}],
        scheduleSpec={"name": "PeriodicSchedule", "type": "Periodic", "spec": _SCHEDULE},
        attributes={"notification": {"category": "sources", "flowRun": {"enabled": True}}},
    )
]


def _offer(kind: str, items: list[Json], words: str) -> None:
    """The two routes of a kind of specifications."""

    @router.get(f"/{kind}", openapi_extra=documented(), description=words)
    def all_(request: Request) -> Json:
        return page(request, kind, items)

    @router.get(
        f"/{kind}/{{id}}",
        description="One of them, by its id, or by its name where there is one of it.",
    )
    def one(id: str) -> Json:  # noqa: A002 - its name in the path
        found = [item for item in items if item["id"] == id]
        by_name = [item for item in items if item["name"].lower() == id.lower()]
        if found or len(by_name) == 1:
            return single(*found or by_name)
        raise NotFound(kind, id)


_offer(
    "connectionSpecs",
    CONNECTION_SPECS,
    "What can be connected: Mixpanel, under two ids, and the data lake.",
)
_offer("flowSpecs", FLOW_SPECS, "How data can flow: from Mixpanel to a dataset, on a schedule.")
