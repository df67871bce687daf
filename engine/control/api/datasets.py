"""Datasets: Catalog's calls. A dataset is the table that a flow fills; its bytes are elsewhere."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from pydantic import BaseModel, ConfigDict, StringConstraints

from engine.catalog.resources import Resource, new
from engine.control.api import filters
from engine.control.api.items import quoted
from engine.control.api.patch import merged
from engine.control.api.plane import AppState, Shared
from engine.control.api.preconditions import Bound
from engine.control.api.problems import cut, invalid
from engine.control.api.registry import SchemaRef, writable
from engine.control.api.secrecy import check_texts
from engine.control.run_payload import PROGRAM
from engine.control.to_flow import schema_named
from engine.errors import InputError, NotFound

Json = dict[str, Any]

MOST = 100  # datasets of a page, as many as there are unless fewer are asked for
TABLE = "adobe/pqs/table"  # the tag with the name that a query calls a table by
CHANGED = ("name", "description", "tags")  # what a patch may change
_EQUAL = (
    *("name", "description", "version", "created", "updated", "createdClient", "createdUser"),
    *("updatedUser", "enableErrorDiagnostics", "state", "namespace"),
)  # fields that are filtered by their own name
FIELDS = frozenset(
    {
        *_EQUAL, "id", "imsOrg", "viewId", "observableSchema", "basePath", "fileDescription",
        "schema", "schemaRef", "files", "tags", "lastBatchId", "lastBatchStatus",
        "lastSuccessfulBatch", "lastFailedBatch", "dataSourceId", "persistence", "classification",
        "extensions",
    }
)  # fmt: skip
"""What a dataset of Catalog has: a field that none has now is no mistake."""

router = APIRouter(prefix="/dataSets", tags=["Datasets"])


class DataSetBody(BaseModel):
    """A dataset: the table that a flow fills."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, StringConstraints(min_length=1)]
    schemaRef: SchemaRef  # noqa: N815  # Catalog's name


def _documented(names: tuple[str, ...]) -> Json:
    """Parameters that a route reads itself, for /openapi.json."""
    words: Mapping[str, tuple[str, Json]] = {
        "property": (
            filters.WORDS,
            {"type": "array", "items": {"type": "string", "maxLength": filters.MOST_TEXT}},
        ),
        "properties": (
            "The fields of the answer, separated by commas.",
            {"type": "string", "maxLength": filters.MOST_TEXT},
        ),
        "tags": (
            "Only those with these tags: name:value, separated by commas; * is any value.",
            {"type": "string", "maxLength": filters.MOST_TEXT},
        ),
        "orderBy": (
            "Fields, separated by commas; asc: or desc: before them all, or - before one.",
            {"type": "string", "maxLength": filters.MOST_TEXT},
        ),
        "limit": ("How many.", {"type": "integer", "minimum": 1, "maximum": MOST}),
        "start": (
            "How many to leave out.",
            {"type": "integer", "minimum": 0, "maximum": 999_999_999},
        ),
    }
    parameters = []
    for name in names:
        equal = {"type": "integer"} if name in _MOMENTS else {"type": "string"}
        text, schema = words.get(name, (f"Only those with this {name}.", equal))
        parameters.append({"name": name, "in": "query", "description": text, "schema": schema})
    return {"parameters": parameters}


_MOMENTS = ("created", "updated")
_PAGE = ("limit", "start", "orderBy", "property", "properties", "tags")


@router.post("", status_code=201)
def create_dataset(plane: Shared, body: DataSetBody, response: Response) -> list[str]:
    """Make a dataset; its table is made when a flow first fills it."""
    try:
        schema = schema_named(plane.resources, body.schemaRef.id)
    except NotFound:
        raise InputError(
            f"schemaRef.id: there is no schema {cut(body.schemaRef.id)}. Make one first, or give "
            "the id of one that is there: GET …/schemaregistry/tenant/schemas lists them."
        ) from None
    given = body.model_dump(exclude_unset=True)
    given.pop("uri", None)  # where a configuration file has its table: no client may say so
    _check_changed(given)
    check_texts(plane, given)
    dataset = new("dataSets", given, plane.now(), id_=secrets.token_hex(12))
    plane.resources.create(dataset, [schema.id])
    response.headers["Location"] = f"/data/foundation/catalog/dataSets/{dataset.id}"
    return _named(dataset.id)


@router.get("", openapi_extra=_documented((*_PAGE, *_EQUAL)))
def list_datasets(plane: Shared, request: Request) -> Json:
    """The datasets by their ids, the oldest first."""
    query = _Query(request)
    items = [{"id": each.id} | _dataset(plane, each) for each in plane.resources.all("dataSets")]
    return {each.pop("id"): query.projected(each) for each in query.page(items)}


@router.get("/{dataset_id}", openapi_extra=_documented(("properties",)))
def get_dataset(plane: Shared, dataset_id: str, request: Request, response: Response) -> Json:
    """One dataset, under its id."""
    dataset = plane.resources.get("dataSets", dataset_id)
    query = _Query(request)
    response.headers["ETag"] = quoted(dataset.etag)
    return {dataset.id: query.projected(_dataset(plane, dataset))}


@router.patch("/{dataset_id}")
def change_dataset(
    plane: Shared, dataset_id: str, body: Annotated[Json | list[Json], Body()], bound: Bound
) -> list[str]:
    """Change the name, the description or the tags of a dataset, by a merge or by a JSON Patch."""
    before = plane.resources.get("dataSets", dataset_id)
    bound.check(before)
    writable(before)
    after = merged(before.body, body, CHANGED)
    _check_changed(after)
    check_texts(plane, after)
    schema = schema_named(plane.resources, after["schemaRef"]["id"])

    def edit(now: Resource) -> tuple[Resource, list[str]]:
        return replace(now, body=after), [schema.id]

    plane.resources.change("dataSets", dataset_id, before.etag, plane.now(), edit)
    return _named(dataset_id)


@router.delete("/{dataset_id}")
def delete_dataset(plane: Shared, dataset_id: str, bound: Bound) -> list[str]:
    """Delete a dataset that no target connection has. Its table stays on the disk."""

    def check(dataset: Resource) -> None:
        bound.check(dataset)
        writable(dataset)

    plane.resources.delete("dataSets", dataset_id, check)
    return _named(dataset_id)


def _named(id_: str) -> list[str]:
    """Catalog's answer to whoever made, changed or deleted a dataset."""
    return [f"@/dataSets/{id_}"]


def _check_changed(body: Json) -> None:
    """Problem for a name, a description or tags that are none."""
    name, description, tags = (body.get(key) for key in CHANGED)
    if not isinstance(name, str) or not name:
        raise invalid("1400-400", "name: must be a text that is not empty.")
    if not isinstance(description, str | None):
        raise invalid("1400-400", "description: must be a text.")
    lists = list((tags or {}).values()) if isinstance(tags, dict | None) else [None]
    if not all(isinstance(each, list) and all(isinstance(v, str) for v in each) for each in lists):
        raise invalid("1400-400", "tags: must be an object of lists of texts.")


def _dataset(plane: AppState, dataset: Resource) -> Json:
    """As Catalog answers it; `basePath` is where its table is."""
    body = {key: value for key, value in dataset.body.items() if key != "uri"}
    tags = body.get("tags") or {}
    defaults = {
        "state": "DRAFT",
        "namespace": "ACP",
        "classification": {"dataBehavior": "time-series", "managedBy": "CUSTOMER"},
    }
    return (
        defaults
        | body
        | {
            "tags": {TABLE: [_table_name(str(body.get("name", dataset.id)))]} | tags,
            "version": "1.0.0",
            "imsOrg": PROGRAM,
            "created": dataset.created_at,
            "updated": dataset.updated_at,
            "createdClient": PROGRAM,
            "createdUser": PROGRAM,
            "updatedUser": PROGRAM,
            "basePath": str(dataset.body.get("uri") or plane.datasets / dataset.id),
            "files": f"@/dataSetFiles?dataSetId={dataset.id}",
        }
    )


def _table_name(name: str) -> str:
    """The name of a dataset as a query can write it, as Query Service makes it."""
    return "".join(each if each.isalnum() else "_" for each in name.lower())


class _Query:
    """What the parameters of a request ask of a list of datasets."""

    def __init__(self, request: Request) -> None:
        self._given: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            self._given.setdefault(name.lower(), []).append(value)

    def _one(self, name: str) -> str | None:
        return self._given.get(name.lower(), [None])[-1]

    def page(self, items: list[Json]) -> list[Json]:
        """Those of `items` that are asked for, in their order."""
        known = FIELDS.union(*items)

        def is_known(field: str) -> bool:
            return field in known or field.partition(".")[0].removesuffix("[]") in known

        wanted = filters.terms(self._given.get("property", []), is_known)
        for name in _EQUAL:
            if (value := self._one(name)) is not None:
                text = filters.short(name, value)
                if name in _MOMENTS:
                    filters.whole(name, text, 0, 10**15)
                wanted.append(filters.Term(name, "==", text))
        found = [
            each
            for each in items
            if all(term.holds(each) for term in wanted) and self._is_tagged(each["tags"])
        ]
        found = self._ordered(found, is_known)
        start = filters.whole("start", self._one("start") or "0", 0, 999_999_999)
        limit = filters.whole("limit", self._limit(), 1, MOST)
        return found[start : start + limit]

    def _limit(self) -> str:
        given = self._one("limit")
        return str(MOST) if given is None else given

    def _ordered(self, items: list[Json], known: Callable[[str], bool]) -> list[Json]:
        """`asc:created,updated` or `desc:created`, as Catalog has it; `-created` too."""
        text = self._one("orderBy")
        if text is None:
            return items
        descends = text.startswith("desc:")
        fields = filters.order([text.removeprefix("asc:").removeprefix("desc:")], known, "")
        fields = tuple((field, down != descends) for field, down in fields)
        return filters.in_order(items, fields)

    def _is_tagged(self, tags: Mapping[str, list[str]]) -> bool:
        """Whether tags have all that are asked for: `name:value`, the value perhaps `*`."""
        text = filters.short("tags", self._one("tags") or "")
        for part in text.split(",") if text else []:
            name, _, value = (each.strip() for each in part.partition(":"))
            if not name or not value:
                raise invalid("1453-400", f"Invalid query value {cut(part)} in tags: name:value.")
            if name not in tags or (value != "*" and value not in tags[name]):
                return False
        return True

    def projected(self, item: Json) -> Json:
        """An item with those of its fields that are asked for."""
        text = self._one("properties")
        if text is None:
            return item
        names = {each.strip() for each in filters.short("properties", text).split(",")}
        return {name: value for name, value in item.items() if name in names}
