"""Convert resources to flows; `from_config` is the other direction.

A flow that cannot run is an InvalidResource with Flow Service's number, or a NotFound.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from engine.catalog.resources import Json, Resource, Resources
from engine.config.value_types import MASK, MIXPANEL_HOSTS, integer, is_text, origin_of
from engine.control.schema_documents import names_of, schema_named, standalone
from engine.control.secrets import SecretStore
from engine.control.validation import (
    DISABLED,
    check_parts,
    check_source,
    credentials_of,
    missing,
    only,
    options_of,
    refused,
    schedule_of,
    table,
)
from engine.dataset.storage.local import canonical
from engine.errors import EtlError, InvalidResource, NotFound, disk_error
from engine.model.flow import HOST, Connection, Flow, Secret
from engine.model.window import latest_day

_PROJECT = ("project_id", "timezone")  # fields of Connection that source connections have

# Flows --------------------------------------------------------------------------------------


def flows(
    resources: Resources,
    store: SecretStore,
    datasets: Path,
    skip_origin: str | None,
    hosts: Collection[str] | None = (),
) -> tuple[dict[str, Flow], dict[str, str]]:
    """Return the enabled flows that were not applied from `skip_origin`, and why others cannot run.

    Both are by flow name. Of two flows that share a table, the older one runs (P4).
    """

    def read(resource: Resource) -> Flow:
        return flow_of(resource, resources, store, datasets, hosts)

    found, problems, owners = dict[str, Flow](), dict[str, str](), dict[str, str]()
    for resource in resources.all("flows"):
        is_skipped = resource.origin is not None and resource.origin == skip_origin
        if is_skipped or resource.body.get("state") == DISABLED:
            continue
        name = name_of(resource)
        try:
            flow = _current_flow(resource, resources, read)
        except EtlError as error:
            problems[name] = str(error)
            continue
        if flow is None:
            continue
        if (owner := owners.setdefault(canonical(flow.dataset), name)) != name:
            problems[name] = f'The dataset is the table of flow "{owner}": give another one.'
            continue
        found[name] = flow
    return found, problems


def _current_flow(
    resource: Resource, resources: Resources, read: Callable[[Resource], Flow]
) -> Flow | None:
    """`read` the flow of a resource; None if it was deleted or disabled meanwhile.

    After an error, a newer version of the resource is read: it may use other resources.
    """
    while True:
        try:
            return read(resource)
        except EtlError:
            try:
                now = resources.get("flows", resource.id)
            except NotFound:
                return None
            if now.body.get("state") == DISABLED:
                return None
            if now.etag == resource.etag:
                raise
            resource = now


def name_of(resource: Resource) -> str:
    """Return the flow's name in the table and the history: its id, or its name in the file."""
    return resource.id if resource.origin is None else str(resource.body["name"])


def is_left(resource: Resource) -> bool:
    """Return whether the configuration file that a resource was applied from is missing."""
    if resource.origin is None:
        return False
    with disk_error(f"look for {resource.origin}"):  # its folder may be unreadable
        return not Path(resource.origin).exists()


def flow_of(
    resource: Resource,
    resources: Resources,
    store: SecretStore,
    datasets: Path,
    hosts: Collection[str] | None = (),
) -> Flow:
    """Return the flow of a resource; InvalidResource or NotFound if it cannot run.

    `datasets` is the folder of the tables that clients made. `hosts` are those that clients'
    connections may name besides Mixpanel's own; None where no request is made: any.
    """
    body = resource.body
    check_parts("flows", body)
    source = resources.get("sourceConnections", only(body, "sourceConnectionIds", "source"))
    target = resources.get("targetConnections", only(body, "targetConnectionIds", "target"))
    dataset = resources.get("dataSets", target.body["params"]["dataSetId"])
    schema = schema_named(resources, dataset.body["schemaRef"]["id"])
    mapping = _mapping(body, schema, resources)
    connection = connection_of(source, resources, store)
    if hosts is not None:
        check_host(resources.get("connections", source.body["baseConnectionId"]), hosts)
    schedule, backfill = schedule_of(body, needed=resource.origin is None)
    options, diagnostics = options_of(body)
    if backfill and schedule and schedule.start_time:
        first = latest_day(schedule.start_time * 1000, connection.zone)
        options.setdefault("backfill_from", first)
    values: Json = {"windows": "arrival" if schedule else "day"}
    values |= check_source(source.body) | options
    return Flow(
        name_of(resource),
        connection,
        dataset_of(dataset, datasets),
        mapping=mapping,
        schema=standalone(schema, resources),
        schedule=schedule,
        diagnostics=diagnostics,
        source_id=source.id,
        target_id=target.id,
        **{key: value for key, value in values.items() if key not in _PROJECT},
    )


def uses(body: Json, resources: Resources) -> list[str]:
    """Return the ids that cannot be deleted while a resource with this body exists.

    Flows use base connections, source connections do not: the tutorial deletes a base connection
    after the flow, and never deletes a source connection.
    """
    named = [(body.get("params") or {}).get("dataSetId")]
    for source in body.get("sourceConnectionIds") or []:
        named += [source, resources.get("sourceConnections", source).body["baseConnectionId"]]
    named += body.get("targetConnectionIds") or []
    named += [each["params"]["mappingId"] for each in body.get("transformations") or []]
    return [each for each in named if each is not None]


# Parts of flows -----------------------------------------------------------------------------


def connection_of(source: Resource, resources: Resources, store: SecretStore) -> Connection:
    """Return the connection of a source connection and its base connection."""
    base = resources.get("connections", source.body["baseConnectionId"])
    secret = store.decrypt(base.secret) if base.secret else {}
    values: Json = {"host": HOST} | credentials_of(base.body, secret)
    values |= {k: v for k, v in check_source(source.body).items() if k in _PROJECT}
    password = Secret(secret["password"])
    return Connection(password=password, name=base.body.get("name") or "mixpanel", **values)


def check_host(base: Resource, hosts: Collection[str]) -> None:
    """Raise InvalidResource unless a base connection has one of Mixpanel's hosts, or of `hosts`.

    A configuration file may name any host: its owner runs the daemon.
    """
    if base.origin is not None:
        return
    params = (base.body.get("auth") or {}).get("params") or {}
    host = credentials_of(base.body, {"password": MASK}).get("host", HOST) if params else HOST
    if (origin := origin_of(host)) not in MIXPANEL_HOSTS and origin not in hosts:
        raise InvalidResource(
            "1400-400",
            f"Connections of clients may have the hosts {', '.join([*MIXPANEL_HOSTS, *hosts])}, "
            f"and connection {base.id} has another one. Give one of these, or add the other to "
            "mixpanel_hosts in the table [api] of the daemon's configuration.",
        )


def dataset_of(dataset: Resource, datasets: Path) -> str:
    """Return the path of a dataset's table; only configuration files choose it."""
    return str(datasets / dataset.id if dataset.origin is None else dataset.body["uri"])


def table_of(flow: Resource, resources: Resources, datasets: Path) -> str:
    """Return the canonical path of the table of a flow."""
    target = resources.get("targetConnections", flow.body["targetConnectionIds"][0])
    dataset = resources.get("dataSets", target.body["params"]["dataSetId"])
    return canonical(dataset_of(dataset, datasets))


def _mapping(body: Json, schema: Resource, resources: Resources) -> tuple[str, Any]:
    transformations = body.get("transformations")
    if not isinstance(transformations, list) or not transformations:
        raise refused("1370-400")
    if len(transformations) > 1 or not isinstance(transformations[0], dict):
        raise InvalidResource(
            "1400-400", "transformations: must hold one mapping, and nothing else"
        )
    params = table(transformations[0], "params")
    if not is_text(params.get("mappingId")):
        raise missing("mappingId")
    mapping = resources.get("mappingSets", params["mappingId"])
    version = integer(params.get("mappingVersion", 0))
    versions = mapping.body["versions"]
    if version is None or not 0 <= version < len(versions):
        raise refused("1412-400")
    document = versions[version]
    outer = document.get("outputSchema") or {}
    wanted = document.get("xdmSchema") or (outer.get("schemaRef") or {}).get("id")
    if wanted is not None and wanted not in names_of(schema):
        raise refused("1425-400", given=wanted, allowed=schema.body.get("$id", schema.id))
    return f"{mapping.id} (version {version})", document
