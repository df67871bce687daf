"""Flows of a configuration file become resources, and resources become the same flows."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog.database import Catalog
from engine.catalog.resources import Resource, Resources, new
from engine.config import file
from engine.config.fields import CONNECTION, FLOW, LEAST_INTERVAL, Field
from engine.config.file import Config
from engine.config.shipped_files import find
from engine.config.value_types import LAST_SECOND, MAX_WHOLE
from engine.control import from_config, to_flow
from engine.control.secrets import SecretStore, secret_store_of
from engine.errors import InputError
from engine.model.flow import (
    HOST,
    Connection,
    Flow,
    Schedule,
    Secret,
    flow_id,
    source_id,
    target_id,
)

NOW = 1_700_000_000_000
PASSWORD = "8iQbnjuk5-secret"
ENVIRON = {"WHO": "reader.6d4ee7.mp-service-account", "WHAT": PASSWORD}
FILE = """
[connections.shop]
host = "eu"
username = { env = "WHO" }
password = { env = "WHAT" }
project_id = 2384945
timezone = "Pacific Standard Time"
[flows.events]
connection = "shop"
dataset = "data/events"
schedule = { frequency = "minute", interval = 15, start_time = 1625040887 }
backfill_from = "2024-01-01"
events = ["Items sold"]
where = 'true'
[flows.by-hand]
connection = "shop"
dataset = "data/by-hand"
keep_superseded_hours = 5
keep_batches_days = 7
unmapped = "drop"
[flows.once]
connection = "shop"
dataset = "data/once"
schedule = { frequency = "once", start_time = 1625040887 }
"""


@pytest.fixture
def resources(tmp_path: Path) -> Iterator[Resources]:
    with Catalog(tmp_path / "home") as catalog:
        yield Resources(catalog)


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return secret_store_of(tmp_path / "home")


def load(folder: Path, text: str = FILE) -> tuple[Config, str]:
    path = folder / "flows.toml"
    path.write_text(text)
    return file.load(path, ENVIRON), str(path)


def everything(resources: Resources) -> list[Resource]:
    return [each for kind in from_config.KINDS for each in resources.all(kind)]


def as_declared(flow: Flow) -> Flow:
    """Return a file's flow as its resources declare it, but for its mapping set."""
    document = find("schema", str(flow.schema))[1]
    return replace(
        flow,
        dataset=str(Path(flow.dataset).absolute()),
        schema=(document["title"], document),
        mapping="",
        source_id=source_id(flow),
        target_id=target_id(flow),
    )


def test_a_file_comes_back_whole(tmp_path: Path, resources: Resources, store: SecretStore) -> None:
    """Every flow of a file is the same flow once its resources are read."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, store, NOW, origin)
    flows, problems = to_flow.flows(resources, store, tmp_path, None)
    assert problems == {}
    assert {name: replace(flow, mapping="") for name, flow in flows.items()} == {
        name: as_declared(flow) for name, flow in loaded.flows.items()
    }
    assert flows["events"].connection.password.reveal() == PASSWORD
    rules = flows["events"].mapping
    assert isinstance(rules, tuple)
    shipped = find("mapping", "mixpanel-events")[1]
    assert rules[1]["mappings"] == shipped["mappings"]
    assert resources.get("flows", flow_id("events")).body["scheduleParams"]["interval"] == 15


LEFT_OUT = ("connection", "dataset", "mapping", "schema", "schedule")  # resources of their own
READABLE = {
    "host": st.sampled_from(["eu", "https://data.mixpanel.com", "http://127.0.0.1:8080"]),
    "password": st.text(min_size=1),
    "timezone": st.sampled_from(["UTC", "Pacific Standard Time", "Asia/Kathmandu"]),
    "backfill_from": st.dates(),
}


def from_schema(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Generate values that a field's JSON Schema allows."""
    if "anyOf" in schema:
        return from_schema(schema["anyOf"][0])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "array":
        return st.lists(from_schema(schema["items"]), min_size=1, max_size=3)
    if schema["type"] == "string":
        return st.from_regex(schema["pattern"]) if "pattern" in schema else st.text()
    least, most = schema["minimum"], schema["maximum"]
    return st.integers(least, most) if schema["type"] == "integer" else st.floats(least, most)


def values(fields: Iterable[Field]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate values of fields, any of which may be left out."""
    found = {}
    for each in fields:
        given = READABLE.get(each.key, from_schema(each.type.schema))
        found[each.key] = given.filter(each.type.accepts).map(each.type.read)
    return st.fixed_dictionaries({}, optional=found)


def schedules() -> st.SearchStrategy[Schedule]:
    """Generate schedules."""
    starts = st.integers(0, LAST_SECOND)
    often = (
        st.builds(Schedule, st.just(unit), st.integers(least, MAX_WHOLE), starts)
        for unit, least in LEAST_INTERVAL.items()
        if unit != "once"
    )
    return st.one_of(st.builds(Schedule, st.just("once"), st.none(), starts), *often)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Resources, SecretStore]]:
    folder = tmp_path_factory.mktemp("home")
    with Catalog(folder) as catalog:
        yield Resources(catalog), secret_store_of(folder)


@settings(deadline=None, max_examples=40)
@given(
    values(CONNECTION),
    values(each for each in FLOW if each.key not in LEFT_OUT),
    st.none() | schedules(),
)
def test_a_flow_comes_back_from_its_resources(
    home: tuple[Resources, SecretStore],
    connection: dict[str, Any],
    options: dict[str, Any],
    schedule: Schedule | None,
) -> None:
    """Whatever its connection, its options and its schedule, a flow is the same afterwards."""
    needed: dict[str, Any] = {
        "host": HOST,
        "username": "reader",
        "password": Secret("p"),
        "project_id": 1,
    }
    made = Connection(**(needed | connection), name="shop")
    flow = Flow("events", made, "/data/events", schedule=schedule, **options)
    resources, store = home
    config = Config(Path("home"), {"events": flow})
    from_config.apply(config, resources, store, NOW, "flows.toml")
    flows, problems = to_flow.flows(resources, store, Path("data"), None, None)
    assert problems == {}
    assert replace(flows["events"], mapping="") == as_declared(flow)


def test_applying_twice_changes_nothing(
    tmp_path: Path, resources: Resources, store: SecretStore
) -> None:
    """P4: a file applied again changes nothing; what it no longer declares is removed."""
    loaded, origin = load(tmp_path)
    assert len(from_config.apply(loaded, resources, store, NOW, origin)) == 21
    first = everything(resources)
    assert from_config.apply(loaded, resources, store, NOW + 5, origin) == []
    assert everything(resources) == first
    assert PASSWORD not in repr(first)
    fewer, _ = load(tmp_path, FILE.partition("[flows.by-hand]")[0].replace("15,", "30,"))
    done = from_config.apply(fewer, resources, store, NOW + 9, origin)
    assert done[0] == f"changed flows {flow_id('events')}"
    assert len(done) == 15
    assert {each.origin for each in everything(resources)} == {origin}
    assert len(everything(resources)) == 7


def test_a_new_password_is_stored(tmp_path: Path, resources: Resources, store: SecretStore) -> None:
    """A new password changes the connections, and no other resource."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, store, NOW, origin)
    fresh = file.load(Path(origin), ENVIRON | {"WHAT": "new"})
    done = from_config.apply(fresh, resources, store, NOW, origin)
    assert [line.split()[:2] for line in done] == [["changed", "connections"]] * 3
    flows, _ = to_flow.flows(resources, store, tmp_path, None)
    assert flows["events"].connection.password.reveal() == "new"


def test_a_lost_key_is_a_problem_until_the_file_is_applied_again(
    tmp_path: Path, resources: Resources, store: SecretStore
) -> None:
    """Flows whose passwords need another key cannot run, and the reason names it."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, store, NOW, origin)
    other = secret_store_of(tmp_path / "other")
    other.encrypt("what makes its key")
    flows, problems = to_flow.flows(resources, other, tmp_path, None)
    assert (flows, list(problems)) == ({}, ["events", "by-hand", "once"])
    assert "another key" in problems["events"]
    from_config.apply(loaded, resources, other, NOW, origin)
    assert len(to_flow.flows(resources, other, tmp_path, None)[0]) == 3


def test_one_flow_of_a_name(tmp_path: Path, resources: Resources, store: SecretStore) -> None:
    """A flow with the name of another file's flow is refused while that file exists."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, store, NOW, origin)
    elsewhere = tmp_path / "moved.toml"
    with pytest.raises(InputError, match=f'flow "events" already, applied from {origin}'):
        from_config.apply(loaded, resources, store, NOW, str(elsewhere))
    Path(origin).rename(elsewhere)
    from_config.apply(loaded, resources, store, NOW, str(elsewhere))
    assert {each.origin for each in everything(resources)} == {str(elsewhere)}


def test_a_flow_named_as_a_clients_id(
    tmp_path: Path, resources: Resources, store: SecretStore
) -> None:
    """A file cannot change a flow that a client made, even under its name."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, store, NOW, origin)
    made = new("flows", resources.get("flows", flow_id("events")).body, NOW)
    resources.create(made)
    before = everything(resources)
    other, _ = load(tmp_path, FILE.replace("flows.by-hand", f"flows.{made.id}"))
    with pytest.raises(InputError, match=f'flow "{made.id}" already, made by a client'):
        from_config.apply(other, resources, store, NOW, origin)
    assert everything(resources) == before


def test_the_daemons_own_file_is_skipped(
    tmp_path: Path, resources: Resources, store: SecretStore
) -> None:
    """Flows applied from the daemon's own file do not run twice; disabled flows do not run."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, store, NOW, origin)
    assert to_flow.flows(resources, store, tmp_path, origin) == ({}, {})

    def disable(before: Resource) -> tuple[Resource, list[str]]:
        return replace(before, body=before.body | {"state": "disabled"}), []

    resources.change("flows", flow_id("once"), None, NOW, disable)
    assert list(to_flow.flows(resources, store, tmp_path, None)[0]) == ["events", "by-hand"]


def test_an_invalid_flow_stops_no_other(
    tmp_path: Path, resources: Resources, store: SecretStore
) -> None:
    """P9: invalid flows, and flows with the table of another, are problems; the others run."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, store, NOW, origin)
    body = resources.get("flows", flow_id("events")).body
    twin = new("flows", body | {"options": {"backfillFrom": "2024-01-01"}}, NOW)
    broken = new("flows", body | {"options": {"lookbackdays": 5}}, NOW)
    for each in (twin, broken):
        resources.create(each)
    flows, problems = to_flow.flows(resources, store, tmp_path, None)
    assert list(flows) == ["events", "by-hand", "once"]
    assert 'the table of flow "events"' in problems[twin.id]
    assert (
        'options: lookbackdays: is not known here; did you mean "lookbackDays"?'
        in (problems[broken.id])
    )


@pytest.mark.parametrize("changed", ["deleted", "disabled", "moved"])
def test_a_flow_that_changes_while_it_is_read(
    tmp_path: Path, resources: Resources, store: SecretStore, changed: str
) -> None:
    """A flow deleted or disabled together with a resource that it names is no problem; one that
    names another resource by then is read again.
    """
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, store, NOW, origin)
    flow = resources.get("flows", flow_id("events"))
    (source,) = flow.body["sourceConnectionIds"]
    listed = Resources.all

    class Raced(Resources):
        def all(self, kind: str) -> list[Resource]:
            found = listed(self, kind)
            if kind == "flows":
                change()
            return found

    def change() -> None:
        other = new("sourceConnections", resources.get("sourceConnections", source).body, NOW)
        resources.create(other)
        if changed == "deleted":
            resources.delete("flows", flow.id)
        else:
            new_body = {"state": "disabled"} if changed == "disabled" else {}
            body = flow.body | {"sourceConnectionIds": [other.id]} | new_body
            resources.change("flows", flow.id, None, NOW, lambda was: (replace(was, body=body), []))
        resources.delete("sourceConnections", source)

    flows, problems = to_flow.flows(Raced(resources._catalog), store, tmp_path, None)
    assert problems == {}
    assert ("events" in flows) == (changed == "moved")


def test_backfill_starts_at_the_start_time(
    tmp_path: Path, resources: Resources, store: SecretStore
) -> None:
    """`backfill` pulls from the day of the start time on; the option backfillFrom overrides it."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, store, NOW, origin)
    made = resources.get("flows", flow_id("events"))
    schedule = {"startTime": "1625040887", "frequency": "DAY", "interval": "1", "backfill": "true"}

    def backfill(options: dict[str, str]) -> date | None:
        body = made.body | {"scheduleParams": schedule, "options": options}
        return to_flow.flow_of(replace(made, body=body), resources, store, tmp_path).backfill_from

    assert backfill({}) == date(2021, 6, 30)
    assert backfill({"backfillFrom": "2024-01-01"}) == date(2024, 1, 1)
    schedule["backfill"] = "False"
    assert backfill({}) is None
