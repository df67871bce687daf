"""Resources -> the flows that they declare, and a configuration file -> resources.

To read a resource is to check it: what cannot be run is an Unfit, with Flow Service's number. It
knows no request and no answer, and runs nothing.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from engine import config
from engine.bodies import (
    AUTH_SPECS,
    DATA_LAKE,
    DISABLED,
    FLOW_SPEC,
    MASK,
    MIXPANEL,
    OPTIONS,
    check_source,
    credentials_of,
    integer,
    missing,
    only,
    options_of,
    schedule_of,
    spec,
    table,
)
from engine.config import Config
from engine.disk import local_path
from engine.errors import EtlError, InputError, InUse, NotThere, Unfit, disk_error
from engine.flow import HOST, Connection, Flow, Secret
from engine.keys import is_text
from engine.report import flow_id, id_of, source_id, target_id
from engine.resources import Json, Resource, Resources, new
from engine.vault import Vault
from engine.window import latest_day

# What runs ----------------------------------------------------------------------------------


def flows(
    resources: Resources, vault: Vault, datasets: Path, skip_origin: str | None
) -> tuple[dict[str, Flow], dict[str, str]]:
    """The enabled flows that were not applied from `skip_origin`, and why others cannot run.

    Both by the name of a flow. Raises nothing for a flow that cannot be read; of two that share a
    table, the older one has it.
    """
    found, problems, owners = dict[str, Flow](), dict[str, str](), dict[str, str]()
    for resource in resources.all("flows"):
        if resource.body.get("state") == DISABLED:
            continue
        if resource.origin is not None and resource.origin == skip_origin:
            continue
        name = name_of(resource)
        try:
            flow = flow_of(resource, resources, vault, datasets)
        except EtlError as error:
            problems[name] = str(error)
            continue
        if (owner := owners.setdefault(place_of(flow.dataset), name)) != name:
            problems[name] = f'The dataset is the table of flow "{owner}": give another one.'
            continue
        found[name] = flow
    return found, problems


def name_of(resource: Resource) -> str:
    """The name that a flow has in the table and in the history: its id, or the file's name."""
    return resource.id if resource.origin is None else str(resource.body["name"])


def is_left(resource: Resource) -> bool:
    """Whether the configuration file that a resource was applied from is gone."""
    if resource.origin is None:
        return False
    with disk_error(f"look for {resource.origin}"):  # a folder that we may not see into
        return not Path(resource.origin).exists()


def flow_of(resource: Resource, resources: Resources, vault: Vault, datasets: Path) -> Flow:
    """The flow that a resource declares. Unfit or NotThere tells why there is none.

    `datasets` is the folder of the tables that clients made.
    """
    body = resource.body
    spec(body, "flowSpec", (FLOW_SPEC,))
    source = resources.get("sourceConnections", only(body, "sourceConnectionIds", "source"))
    target = resources.get("targetConnections", only(body, "targetConnectionIds", "target"))
    dataset = resources.get("dataSets", target.body["params"]["dataSetId"])
    schema = schema_of(dataset, resources)
    mapping = _mapping(body, schema, resources)
    connection = connection_of(source, resources, vault)
    schedule, backfill = schedule_of(body, needed=resource.origin is None)
    options, diagnostics = options_of(body)
    if backfill and schedule:
        first = latest_day(schedule.start_time * 1000, connection.zone)
        options.setdefault("backfill_from", first)
    params = source.body["params"]
    defaults: Json = {"windows": "arrival" if schedule else "day"}
    return Flow(
        name_of(resource),
        connection,
        dataset_of(dataset, datasets),
        mapping=mapping,
        schema=(str(schema.body.get("title") or schema.id), schema.body),
        events=tuple(params.get("events") or ()),
        where=params.get("where"),
        schedule=schedule,
        diagnostics=diagnostics,
        source_id=source.id,
        target_id=target.id,
        **(defaults | options),
    )


def uses(body: Json, resources: Resources) -> list[str]:
    """The ids that cannot be deleted while a resource with this body is there.

    A base connection is a flow's, not a source connection's: the tutorial deletes it once the flow
    is gone, and deletes no source connection ever.
    """
    named = [(body.get("params") or {}).get("dataSetId")]
    for source in body.get("sourceConnectionIds") or []:
        named += [source, resources.get("sourceConnections", source).body["baseConnectionId"]]
    named += body.get("targetConnectionIds") or []
    named += [each["params"]["mappingId"] for each in body.get("transformations") or []]
    return [each for each in named if each is not None]


# The parts of it ----------------------------------------------------------------------------


def connection_of(source: Resource, resources: Resources, vault: Vault) -> Connection:
    """The connection of a source connection: what its base connection and its params say."""
    base = resources.get("connections", source.body["baseConnectionId"])
    secret = vault.open(base.secret) if base.secret else {}
    values: Json = {"host": HOST} | credentials_of(base.body, secret) | check_source(source.body)
    password = Secret(secret["password"])
    return Connection(password=password, name=base.body.get("name") or "mixpanel", **values)


def schema_of(dataset: Resource, resources: Resources) -> Resource:
    """The schema of a dataset, which names it by its id or by its `$id`."""
    wanted = dataset.body["schemaRef"]["id"]
    found = [schema for schema in resources.all("schemas") if wanted in _names(schema)]
    for schema in sorted(found, key=lambda each: each.id != wanted):
        return schema
    raise NotThere("schemas", wanted)


def dataset_of(dataset: Resource, datasets: Path) -> str:
    """Where the table of a dataset is: a client cannot choose, a configuration file can."""
    return str(datasets / dataset.id if dataset.origin is None else dataset.body["uri"])


def table_of(flow: Resource, resources: Resources, datasets: Path) -> str:
    """The one name of the table of a flow."""
    target = resources.get("targetConnections", flow.body["targetConnectionIds"][0])
    dataset = resources.get("dataSets", target.body["params"]["dataSetId"])
    return place_of(dataset_of(dataset, datasets))


def place_of(dataset: str) -> str:
    """One table has one name, wherever we are."""
    return os.path.realpath(local_path(dataset))


def _mapping(body: Json, schema: Resource, resources: Resources) -> tuple[str, Any]:
    """The name and the document of a flow's mapping set, in the version that it names."""
    transformations = body.get("transformations")
    if not isinstance(transformations, list) or not transformations:
        raise Unfit(
            "1370-400",
            "The source columns could not be fetched for ingestion because the mapping "
            "transformation is missing. Please add the mapping transformation and try again.",
        )
    if len(transformations) > 1 or not isinstance(transformations[0], dict):
        raise Unfit("1400-400", "transformations: must hold one mapping, and nothing else")
    params = table(transformations[0], "params")
    if not is_text(params.get("mappingId")):
        raise missing("mappingId")
    mapping = resources.get("mappingSets", params["mappingId"])
    version = integer(params.get("mappingVersion", 0))
    versions = mapping.body["versions"]
    if version is None or not 0 <= version < len(versions):
        raise Unfit(
            "1412-400",
            "Invalid Mapping Version in request. Please provide correct mapping version.",
        )
    document = versions[version]
    outer = document.get("outputSchema") or {}
    wanted = document.get("xdmSchema") or (outer.get("schemaRef") or {}).get("id")
    if wanted is not None and wanted not in _names(schema):
        raise Unfit(
            "1425-400",
            f"Error while matching schema in target dataset {schema.body.get('$id', schema.id)} "
            f"with schema in mapping {wanted}. Schema with same id and version must be used in "
            "both mapping and target dataset.",
        )
    return f"{mapping.id} (version {version})", document


def _names(schema: Resource) -> tuple[Any, ...]:
    return schema.id, schema.body.get("$id", schema.id), schema.body.get("meta:altId", schema.id)


# From a configuration file ------------------------------------------------------------------


class Wanted(NamedTuple):
    """A resource that a configuration file asks for."""

    kind: str
    id: str
    body: Json
    secret: Json | None = None


def apply(config: Config, resources: Resources, vault: Vault, now: int, origin: str) -> list[str]:
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
    yield Wanted(
        "connections",
        connection,
        {
            "name": flow.connection.name,
            "connectionSpec": _version(MIXPANEL[-1]),
            "auth": {
                "specName": AUTH_SPECS[-1],
                "params": {
                    "host": flow.connection.host,
                    "username": flow.connection.username,
                    "password": MASK,
                },
            },
        },
        {"password": flow.connection.password.reveal()},
    )
    yield Wanted("schemas", schema, _document("schema", flow.schema))
    yield Wanted(
        "dataSets",
        dataset,
        {
            "name": name,
            "schemaRef": {"id": schema, "contentType": "application/vnd.adobe.xed+json;version=1"},
            "uri": str(local_path(flow.dataset).absolute()),
        },
    )
    rules = {k: v for k, v in _document("mapping", flow.mapping).items() if k != "outputSchema"}
    rules |= {"id": mapping, "version": 0, "xdmSchema": schema}
    yield Wanted("mappingSets", mapping, rules | {"versions": [rules]})
    more = {"events": list(flow.events) or None, "where": flow.where}
    yield Wanted(
        "sourceConnections",
        source_id(flow),
        {
            "name": name,
            "baseConnectionId": connection,
            "connectionSpec": _version(MIXPANEL[-1]),
            "data": {"format": "json"},
            "params": {
                "projectId": str(flow.connection.project_id),
                "timezone": flow.connection.timezone,
                **{key: value for key, value in more.items() if value is not None},
            },
        },
    )
    yield Wanted(
        "targetConnections",
        target_id(flow),
        {
            "name": name,
            "connectionSpec": _version(DATA_LAKE),
            "data": {"format": "parquet_xdm"},
            "params": {"dataSetId": dataset},
        },
    )
    yield Wanted("flows", flow_id(name), _flow_body(flow, mapping))


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
    found = config.find(kind, given) if isinstance(given, str) else given
    if not isinstance(found[1], dict):
        raise InputError(f"The {kind} {found[0]} is not a JSON object.")
    return found[1]


def _check_name(resources: Resources, id_: str, name: str, origin: str) -> None:
    """A home has one flow of a name: that of a file that is gone may be taken over.

    What a client made has its id for a name.
    """
    try:
        other = resources.get("flows", id_)
    except NotThere:
        return
    if other.origin == origin or is_left(other):
        return
    whose = f"applied from {other.origin}" if other.origin else "made by a client"
    away = "remove that one and apply its file again" if other.origin else "delete that one"
    raise InputError(
        f'There is a flow "{name}" already, {whose}. Give this one another name, or {away}.'
    )


def _put(each: Wanted, resources: Resources, vault: Vault, now: int, origin: str) -> str:
    """Make a resource be as it is wanted; what was done, "" if nothing was."""
    used = uses(each.body, resources)
    if each.kind == "dataSets":
        used.append(each.body["schemaRef"]["id"])
    secret = each.secret and vault.seal(each.secret)
    try:
        before = resources.get(each.kind, each.id)
    except NotThere:
        made = new(each.kind, each.body, now, id_=each.id, secret=secret or None, origin=origin)
        resources.create(made, used)
        return f"made {each.kind} {each.id}"
    if (before.body, before.origin, _opened(before, vault)) == (each.body, origin, each.secret):
        return ""
    after = replace(before, body=each.body, secret=secret or None, origin=origin)
    resources.change(each.kind, each.id, None, now, lambda _: (after, used))
    return f"changed {each.kind} {each.id}"


def _opened(resource: Resource, vault: Vault) -> Json | None:
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
    except InUse as error:
        return f"kept {resource.kind} {resource.id}: {error}"
    return f"removed {resource.kind} {resource.id}"
