"""A configuration file -> resources: a home keeps what the file declares, and shows it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

from engine.catalog.resources import Json, Resource, Resources, new
from engine.config import file
from engine.config.file import Config
from engine.control.secrets import SecretStore
from engine.control.to_flow import is_left, uses
from engine.control.validation import AUTH_SPECS, DATA_LAKE, FLOW_SPEC, MASK, MIXPANEL, OPTIONS
from engine.dataset.storage.local import local_path
from engine.errors import InputError, NotFound, ResourceInUse
from engine.model.flow import Connection, Flow, flow_id, id_of, source_id, target_id


class Wanted(NamedTuple):
    """A resource that a configuration file asks for."""

    kind: str
    id: str
    body: Json
    secret: Json | None = None


def apply(
    config: Config, resources: Resources, vault: SecretStore, now: int, origin: str
) -> list[str]:
    """Make, change and remove resources until they are those of `origin`; what was done.

    `origin` is the path of the configuration file that `config` was read from. Ids grow from the
    names of flows, so that doing it twice changes nothing; being killed in the midst of it leaves
    what the next time completes. InputError where another file has a flow of that name.
    """
    wanted = [each for flow in config.flows.values() for each in _wanted(flow)]
    for kind, id_, body, _ in wanted:
        if kind == "flows":
            _check_name(resources, id_, body["name"], origin)
    done = [said for each in wanted if (said := _put(each, resources, vault, now, origin))]
    kept = {each.id for each in wanted}
    for kind in reversed(KINDS):
        left = [each for each in resources.all(kind) if each.origin == origin]
        done += [_remove(each, resources) for each in left if each.id not in kept]
    return done


KINDS = (
    *("connections", "schemas", "dataSets", "mappingSets"),
    *("sourceConnections", "targetConnections", "flows"),
)  # each after those that it uses


def _wanted(flow: Flow) -> Iterator[Wanted]:
    """The resources that make up a flow, each after those that it uses."""
    name = flow.name
    connection, schema = id_of("connection", name), id_of("schema", name)
    dataset = UUID(id_of("dataset", name)).hex[:24]  # as the ids of Adobe's catalog
    mapping = UUID(id_of("mapping", name)).hex
    secret = {"password": flow.connection.password.reveal()}
    yield Wanted("connections", connection, _connection_body(flow.connection), secret)
    yield Wanted("schemas", schema, _document("schema", flow.schema))
    yield Wanted("dataSets", dataset, _dataset_body(flow, schema))
    rules = {k: v for k, v in _document("mapping", flow.mapping).items() if k != "outputSchema"}
    rules |= {"id": mapping, "version": 0, "xdmSchema": schema}
    yield Wanted("mappingSets", mapping, rules | {"versions": [rules]})
    yield Wanted("sourceConnections", source_id(flow), _source_body(flow, connection))
    target = {
        "name": name,
        "connectionSpec": _version(DATA_LAKE),
        "data": {"format": "parquet_xdm"},
        "params": {"dataSetId": dataset},
    }
    yield Wanted("targetConnections", target_id(flow), target)
    yield Wanted("flows", flow_id(name), _flow_body(flow, mapping))


def _connection_body(connection: Connection) -> Json:
    params = {"host": connection.host, "username": connection.username, "password": MASK}
    return {
        "name": connection.name,
        "connectionSpec": _version(MIXPANEL[-1]),
        "auth": {"specName": AUTH_SPECS[-1], "params": params},
    }


def _dataset_body(flow: Flow, schema: str) -> Json:
    return {
        "name": flow.name,
        "schemaRef": {"id": schema, "contentType": "application/vnd.adobe.xed+json;version=1"},
        "uri": str(local_path(flow.dataset).absolute()),
    }


def _source_body(flow: Flow, connection: str) -> Json:
    params = {
        "projectId": str(flow.connection.project_id),
        "timezone": flow.connection.timezone,
        "events": list(flow.events) or None,
        "where": flow.where,
    }
    return {
        "name": flow.name,
        "baseConnectionId": connection,
        "connectionSpec": _version(MIXPANEL[-1]),
        "data": {"format": "json"},
        "params": {key: value for key, value in params.items() if value is not None},
    }


def _flow_body(flow: Flow, mapping: str) -> Json:
    options = {theirs: getattr(flow, ours) for theirs, ours in OPTIONS.items()}
    options["backfillFrom"] = flow.backfill_from and str(flow.backfill_from)
    body: Json = {
        "name": flow.name,
        "flowSpec": _version(FLOW_SPEC),
        "sourceConnectionIds": [source_id(flow)],
        "targetConnectionIds": [target_id(flow)],
        "transformations": [
            {"name": "Mapping", "params": {"mappingId": mapping, "mappingVersion": "0"}}
        ],
        "options": {key: value for key, value in options.items() if value is not None},
    }
    if schedule := flow.schedule:
        given = {"startTime": schedule.start_time, "frequency": schedule.frequency}
        interval = {} if schedule.interval is None else {"interval": schedule.interval}
        body["scheduleParams"] = given | interval
    return body


def _version(spec: str) -> Json:
    return {"id": spec, "version": "1.0"}


def _document(kind: str, given: Any) -> Json:
    found = file.find(kind, given) if isinstance(given, str) else given
    if not isinstance(found[1], dict):
        raise InputError(f"The {kind} {found[0]} is not a JSON object.")
    return found[1]


def _check_name(resources: Resources, id_: str, name: str, origin: str) -> None:
    """A home has one flow of a name: that of a file that is gone may be taken over.

    What a client made has its id for a name.
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


def _put(each: Wanted, resources: Resources, vault: SecretStore, now: int, origin: str) -> str:
    """Make a resource be as it is wanted; what was done, "" if nothing was."""
    used = uses(each.body, resources)
    if each.kind == "dataSets":
        used.append(each.body["schemaRef"]["id"])
    secret = each.secret and vault.seal(each.secret)
    try:
        before = resources.get(each.kind, each.id)
    except NotFound:
        made = new(each.kind, each.body, now, id_=each.id, secret=secret or None, origin=origin)
        resources.create(made, used)
        return f"made {each.kind} {each.id}"
    if (before.body, before.origin, _opened(before, vault)) == (each.body, origin, each.secret):
        return ""
    after = replace(before, body=each.body, secret=secret or None, origin=origin)
    resources.change(each.kind, each.id, None, now, lambda _: (after, used))
    return f"changed {each.kind} {each.id}"


def _opened(resource: Resource, vault: SecretStore) -> Json | None:
    """What a resource keeps secret; None where another key sealed it, too."""
    if resource.secret is None:
        return None
    try:
        opened: Json = vault.open(resource.secret)
    except InputError:
        return None
    return opened


def _remove(resource: Resource, resources: Resources) -> str:
    try:
        resources.delete(resource.kind, resource.id)
    except ResourceInUse as error:
        return f"kept {resource.kind} {resource.id}: {error}"
    return f"removed {resource.kind} {resource.id}"
