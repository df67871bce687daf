"""Datasets: Catalog's calls. A dataset is the table that a flow fills.

This module reads no file of a table.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import BaseModel, ConfigDict, StringConstraints

from engine.catalog.resources import Resource, new
from engine.control.api import catalog_filters
from engine.control.api.app_state import AppState, State
from engine.control.api.etag_checks import Bound
from engine.control.api.json_patch import merged
from engine.control.api.listing import query_parameters
from engine.control.api.listing_filter import top_name
from engine.control.api.password_leaks import check_texts
from engine.control.api.problems import cut, invalid
from engine.control.api.schema_registry import SchemaRef, check_writable
from engine.control.api.serializers import quoted
from engine.control.run_payload import PROGRAM
from engine.control.schema_documents import Registry, schema_named
from engine.errors import InputError, NotFound
from engine.transform.schema_forms import full

Json = dict[str, Any]

MOST = 100  # datasets of a page, which is the default too
TABLE = "adobe/pqs/table"  # the tag with the name of the table in queries
PATCHABLE = ("name", "description", "tags")
MOST_SKIPPED = 999_999_999
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
"""Fields of a dataset. A filter by one of them is valid although no dataset has it now."""

router = APIRouter(prefix="/dataSets", tags=["Datasets"])

Ignored = Annotated[str | None, Query(description="Ignored: there are no data sources.")]


class DataSetBody(BaseModel):
    """A dataset: the table that a flow fills."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, StringConstraints(min_length=1)]
    schemaRef: SchemaRef  # noqa: N815  # Catalog's name


def _documented(names: tuple[str, ...]) -> Json:
    """Return the OpenAPI parameters that a route reads itself."""
    text, integer = catalog_filters.SHORT_TEXT, {"type": "integer"}
    described: dict[str, tuple[str, Json]] = {
        "property": (catalog_filters.DESCRIPTION, {"type": "array", "items": text}),
        "properties": ("The fields of the response, separated by commas.", text),
        "tags": (
            "Only those with these tags: name:value, separated by commas; * is any value.",
            text,
        ),
        "orderBy": (
            "Fields, separated by commas; asc: or desc: before them all, or - before one.",
            text,
        ),
        "limit": ("Maximum number of datasets.", integer | {"minimum": 1, "maximum": MOST}),
        "start": ("Number of datasets to skip.", integer | {"minimum": 0, "maximum": MOST_SKIPPED}),
    }
    for name in _EQUAL:
        schema = integer if name in _MOMENTS else {"type": "string"}
        described[name] = (f"Only those with this {name}.", schema)
    return query_parameters({name: described[name] for name in names})


_MOMENTS = ("created", "updated")
_PAGE = ("limit", "start", "orderBy", "property", "properties", "tags")


@router.post("", status_code=201)
def create_dataset(
    state: State,
    body: DataSetBody,
    response: Response,
    *,
    requestDataSource: Ignored = None,  # noqa: N803  # Catalog's name
) -> list[str]:
    """Create a dataset; its table is created when a flow first writes to it."""
    try:
        schema = schema_named(state.resources, body.schemaRef.id)
    except NotFound:
        raise InputError(
            f"schemaRef.id: there is no schema {cut(body.schemaRef.id)}. Make one first, or give "
            "the id of one that is there: GET …/schemaregistry/tenant/schemas lists them."
        ) from None
    document = body.model_dump(exclude_unset=True)
    document.pop("uri", None)  # only a configuration file may place a table
    _check_patchable(document)
    check_texts(state, document)
    dataset = new("dataSets", document, state.now(), id_=secrets.token_hex(12))
    state.resources.create(dataset, [schema.id])
    response.headers["Location"] = f"/data/foundation/catalog/dataSets/{dataset.id}"
    return _named(dataset.id)


@router.get("", openapi_extra=_documented((*_PAGE, *_EQUAL)))
def list_datasets(state: State, request: Request) -> Json:
    """List the datasets by their ids, oldest first."""
    query = _Query(request)
    items = [{"id": each.id} | _dataset(state, each) for each in state.resources.all("dataSets")]
    shown = {each.pop("id"): each for each in query.page(items)}
    return {id_: query.projected(_observed(state, query, each)) for id_, each in shown.items()}


@router.get("/{dataset_id}", openapi_extra=_documented(("properties",)))
def get_dataset(state: State, dataset_id: str, request: Request, response: Response) -> Json:
    """Return one dataset under its id."""
    dataset = state.resources.get("dataSets", dataset_id)
    query = _Query(request)
    response.headers["ETag"] = quoted(dataset.etag)
    item = _observed(state, query, _dataset(state, dataset))
    return {dataset.id: query.projected(item)}


@router.patch("/{dataset_id}")
def change_dataset(
    state: State, dataset_id: str, body: Annotated[Json | list[Json], Body()], bound: Bound
) -> list[str]:
    """Change the name, the description or the tags of a dataset, by a merge or by a JSON Patch."""
    before = state.resources.get("dataSets", dataset_id)
    bound.check(before)
    check_writable(before)
    after = merged(before.body, body, PATCHABLE)
    _check_patchable(after)
    check_texts(state, after)
    schema = schema_named(state.resources, after["schemaRef"]["id"])

    def edit(now: Resource) -> tuple[Resource, list[str]]:
        return replace(now, body=after), [schema.id]

    state.resources.change("dataSets", dataset_id, before.etag, state.now(), edit)
    return _named(dataset_id)


@router.delete("/{dataset_id}")
def delete_dataset(state: State, dataset_id: str, bound: Bound) -> list[str]:
    """Delete a dataset that no target connection uses. Its table stays on the disk."""

    def check(dataset: Resource) -> None:
        bound.check(dataset)
        check_writable(dataset)

    state.resources.delete("dataSets", dataset_id, check)
    return _named(dataset_id)


def _named(id_: str) -> list[str]:
    """Return Catalog's response to a dataset that was created, changed or deleted."""
    return [f"@/dataSets/{id_}"]


def _check_patchable(body: Json) -> None:
    """Raise Problem unless name, description and tags have their types."""
    name, description, tags = (body.get(key) for key in PATCHABLE)
    if not isinstance(name, str) or not name:
        raise invalid("1400-400", "name: must be a text that is not empty.")
    if not isinstance(description, str | None):
        raise invalid("1400-400", "description: must be a text.")
    lists = list((tags or {}).values()) if isinstance(tags, dict | None) else [None]
    if not all(isinstance(each, list) and all(isinstance(v, str) for v in each) for each in lists):
        raise invalid("1400-400", "tags: must be an object of lists of texts.")


def _dataset(state: AppState, dataset: Resource) -> Json:
    """Return a dataset as Catalog does; `basePath` is the path of its table."""
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
            "basePath": str(dataset.body.get("uri") or state.datasets / dataset.id),
            "files": f"@/dataSetFiles?dataSetId={dataset.id}",
        }
    )


def _observed(state: AppState, query: "_Query", item: Json) -> Json:
    """Add to a dataset the fields that its schema has, where a client names `observableSchema`."""
    if "observableSchema" not in query.names:
        return item
    registry = Registry(state.resources)
    schema = schema_named(state.resources, item["schemaRef"]["id"])
    whole = registry.checked(lambda: full(schema.body, registry.document))
    observed = {"type": "object", "meta:xdmType": "object", "properties": whole["properties"]}
    return item | {"observableSchema": observed}


def _table_name(name: str) -> str:
    """Return the name of a dataset's table in queries, by Query Service's rule."""
    return "".join(each if each.isalnum() else "_" for each in name.lower())


class _Query:
    """The query parameters of a list of datasets."""

    def __init__(self, request: Request) -> None:
        self._values = catalog_filters.values_by_name(request)
        text = catalog_filters.check_length("properties", self._last("properties") or "")
        self.names = {each.strip() for each in text.split(",")}

    def _last(self, name: str) -> str | None:
        return self._values.get(name.lower(), [None])[-1]

    def page(self, items: list[Json]) -> list[Json]:
        """Filter, sort and page `items`."""
        known = FIELDS.union(*items)

        def is_known(field: str) -> bool:
            return field in known or top_name(field) in known

        terms = catalog_filters.parse_terms(self._values.get("property", []), is_known)
        for name in _EQUAL:
            if (value := self._last(name)) is not None:
                text = catalog_filters.check_length(name, value)
                if name in _MOMENTS:
                    catalog_filters.parse_whole(name, text, 0, 10**15)
                terms.append(catalog_filters.Term(name, "==", text))
        matching = [
            item
            for item in items
            if all(term.holds(item) for term in terms) and self._is_tagged(item["tags"])
        ]
        matching = self._ordered(matching, is_known)
        start = catalog_filters.parse_whole("start", self._last("start") or "0", 0, MOST_SKIPPED)
        limit_text = self._last("limit")
        limit = catalog_filters.parse_whole(
            "limit", str(MOST) if limit_text is None else limit_text, 1, MOST
        )
        return matching[start : start + limit]

    def _ordered(self, items: list[Json], known: Callable[[str], bool]) -> list[Json]:
        """Sort by Catalog's `asc:created,updated` or `desc:created`, or by `-created`."""
        text = self._last("orderBy")
        if text is None:
            return items
        descending = text.startswith("desc:")
        fields = catalog_filters.parse_order(
            [text.removeprefix("asc:").removeprefix("desc:")], known, ""
        )
        fields = tuple((field, sign != descending) for field, sign in fields)
        return catalog_filters.in_order(items, fields)

    def _is_tagged(self, tags: Mapping[str, list[str]]) -> bool:
        """Return whether tags have every `name:value` of `tags`; `*` is any value."""
        text = catalog_filters.check_length("tags", self._last("tags") or "")
        for part in text.split(",") if text else []:
            name, _, value = (each.strip() for each in part.partition(":"))
            if not name or not value:
                raise invalid("1453-400", f"Invalid query value {cut(part)} in tags: name:value.")
            if name not in tags or (value != "*" and value not in tags[name]):
                return False
        return True

    def projected(self, item: Json) -> Json:
        """Return an item with the fields that `properties` names."""
        if self._last("properties") is None:
            return item
        return {name: value for name, value in item.items() if name in self.names}
