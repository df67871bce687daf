"""Convert the flows of a configuration file to resources; `to_flow` is the other direction."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, NamedTuple
from uuid import UUID

from engine.catalog.resources import Json, Resource, Resources, new
from engine.config.fields import ACCOUNT, OPTIONS, SCHEDULES, SOURCE, write
from engine.config.file import Config
from engine.config.shipped_files import find
from engine.control.secrets import SecretStore
from engine.control.to_flow import is_left, uses
from engine.control.validation import AUTH_SPECS, DATA_LAKE, FLOW_SPEC, MIXPANEL
from engine.dataset.storage.local import local_path
from engine.errors import InputError, NotFound, ResourceInUse
from engine.model.flow import Connection, Flow, Schedule, flow_id, id_of, source_id, target_id

KINDS = (
    *("connections", "schemas", "dataSets", "mappingSets"),
    *("sourceConnections", "targetConnections", "flows"),
)  # each after the kinds that it uses


class Declared(NamedTuple):
    """A resource as a configuration file declares it."""

    kind: str
    id: str
    body: Json
    secret: Json | None = None


def apply(
    config: Config, resources: Resources, store: SecretStore, now: int, origin: str
) -> list[str]:
    """Create, change and remove resources until those of `origin` are those of `config`.

    Returns a line for each change. `origin` is the path of the configuration file. Idempotent, as
    ids derive from flow names; the next call completes one that was killed (P2). InputError if
    another file has a flow of the same name.
    """
    declared = [each for flow in config.flows.values() for each in _resources_of(flow)]
    for kind, id_, body, _ in declared:
        if kind == "flows":
            _check_name(resources, id_, body["name"], origin)
    changes = [line for each in declared if (line := _put(each, resources, store, now, origin))]
    ids = {each.id for each in declared}
    for kind in reversed(KINDS):
        applied = [each for each in resources.all(kind) if each.origin == origin]
        changes += [_remove(each, resources) for each in applied if each.id not in ids]
    return changes


def _resources_of(flow: Flow) -> Iterator[Declared]:
    name, values = flow.name, _values(flow.connection) | _values(flow)
    connection, schema = id_of("connection", name), id_of("schema", name)
    dataset = UUID(id_of("dataset", name)).hex[:24]  # as the ids of Adobe's catalog
    mapping = UUID(id_of("mapping", name)).hex
    body: Json = {
        "name": flow.connection.name,
        "connectionSpec": _version(MIXPANEL[-1]),
        "auth": {"specName": AUTH_SPECS[-1], "params": write(ACCOUNT, values)},
    }
    yield Declared("connections", connection, body, {"password": values["password"].reveal()})
    yield Declared("schemas", schema, _document("schema", flow.schema))
    body = {
        "name": name,
        "schemaRef": {"id": schema, "contentType": "application/vnd.adobe.xed+json;version=1"},
        "uri": str(local_path(flow.dataset).absolute()),
    }
    yield Declared("dataSets", dataset, body)
    rules = {k: v for k, v in _document("mapping", flow.mapping).items() if k != "outputSchema"}
    rules |= {"id": mapping, "version": 0, "xdmSchema": schema}
    yield Declared("mappingSets", mapping, rules | {"versions": [rules]})
    body = {
        "name": name,
        "baseConnectionId": connection,
        "connectionSpec": _version(MIXPANEL[-1]),
        "data": {"format": "json"},
        "params": write(SOURCE, values),
    }
    yield Declared("sourceConnections", source_id(flow), body)
    body = {
        "name": name,
        "connectionSpec": _version(DATA_LAKE),
        "data": {"format": "parquet_xdm"},
        "params": {"dataSetId": dataset},
    }
    yield Declared("targetConnections", target_id(flow), body)
    yield Declared("flows", flow_id(name), _flow_body(flow, mapping, values))


def _flow_body(flow: Flow, mapping: str, values: Json) -> Json:
    params = {"mappingId": mapping, "mappingVersion": "0"}
    schedule = write(SCHEDULES, _values(flow.schedule)) if flow.schedule else None
    return {
        "name": flow.name,
        "flowSpec": _version(FLOW_SPEC),
        "sourceConnectionIds": [source_id(flow)],
        "targetConnectionIds": [target_id(flow)],
        "transformations": [{"name": "Mapping", "params": params}],
        "options": write(OPTIONS, values),
    } | ({"scheduleParams": schedule} if schedule else {})


def _values(model: Connection | Flow | Schedule) -> Json:
    return {each.name: getattr(model, each.name) for each in fields(model)}


def _version(spec: str) -> Json:
    return {"id": spec, "version": "1.0"}


def _document(kind: str, given: Any) -> Json:
    found = find(kind, given) if isinstance(given, str) else given
    if not isinstance(found[1], dict):
        raise InputError(f"The {kind} {found[0]} is not a JSON object.")
    return found[1]


def _check_name(resources: Resources, id_: str, name: str, origin: str) -> None:
    """Raise InputError if another file has a flow of the name, or a client made one.

    A flow whose file is missing may be taken over.
    """
    try:
        other = resources.get("flows", id_)
    except NotFound:
        return
    if other.origin == origin or is_left(other):
        return
    whose = f"applied from {other.origin}" if other.origin else "made by a client"
    away = "remove that one and apply its file again" if other.origin else "delete that one"
    raise InputError(
        f'There is a flow "{name}" already, {whose}. Give this one another name, or {away}.'
    )


def _put(each: Declared, resources: Resources, store: SecretStore, now: int, origin: str) -> str:
    """Create or change a resource, and return a line on it; "" if it is as declared."""
    used = uses(each.body, resources)
    if each.kind == "dataSets":
        used.append(each.body["schemaRef"]["id"])
    secret = each.secret and store.encrypt(each.secret)
    try:
        before = resources.get(each.kind, each.id)
    except NotFound:
        made = new(each.kind, each.body, now, id_=each.id, secret=secret or None, origin=origin)
        resources.create(made, used)
        return f"made {each.kind} {each.id}"
    stored = before.body, before.origin, store.try_decrypt(before.secret)
    if stored == (each.body, origin, each.secret):
        return ""
    after = replace(before, body=each.body, secret=secret or None, origin=origin)
    resources.change(each.kind, each.id, None, now, lambda _: (after, used))
    return f"changed {each.kind} {each.id}"


def _remove(resource: Resource, resources: Resources) -> str:
    try:
        resources.delete(resource.kind, resource.id)
    except ResourceInUse as error:
        return f"kept {resource.kind} {resource.id}: {error}"
    return f"removed {resource.kind} {resource.id}"
