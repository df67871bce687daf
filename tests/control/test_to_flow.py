"""Resources and a configuration file declare the same flows, each from the other."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from engine.catalog.database import Catalog
from engine.catalog.resources import Resource, Resources, new
from engine.config import file
from engine.config.file import Config, find
from engine.control import from_config, to_flow
from engine.control.secrets import SecretStore, secret_store_of
from engine.errors import InputError
from engine.model.flow import Flow, flow_id, source_id, target_id

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
def vault(tmp_path: Path) -> SecretStore:
    return secret_store_of(tmp_path / "home")


def load(folder: Path, text: str = FILE) -> tuple[Config, str]:
    path = folder / "flows.toml"
    path.write_text(text)
    return file.load(path, ENVIRON), str(path)


def everything(resources: Resources) -> list[Resource]:
    return [each for kind in from_config.KINDS for each in resources.all(kind)]


def as_declared(flow: Flow) -> Flow:
    """What the file's flow is once it has come through resources; its rules apart."""
    document = find("schema", str(flow.schema))[1]
    return replace(
        flow,
        dataset=str(Path(flow.dataset).absolute()),
        schema=(document["title"], document),
        mapping="",
        source_id=source_id(flow),
        target_id=target_id(flow),
    )


def test_a_file_comes_back_whole(tmp_path: Path, resources: Resources, vault: SecretStore) -> None:
    """Every flow of a file is the same flow once it is resources."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, vault, NOW, origin)
    flows, problems = to_flow.flows(resources, vault, tmp_path, None)
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


def test_twice_is_once(tmp_path: Path, resources: Resources, vault: SecretStore) -> None:
    """Applied again, a file changes nothing; what it no longer has goes."""
    loaded, origin = load(tmp_path)
    assert len(from_config.apply(loaded, resources, vault, NOW, origin)) == 21
    first = everything(resources)
    assert from_config.apply(loaded, resources, vault, NOW + 5, origin) == []
    assert everything(resources) == first
    assert PASSWORD not in repr(first)
    fewer, _ = load(tmp_path, FILE.partition("[flows.by-hand]")[0].replace("15,", "30,"))
    done = from_config.apply(fewer, resources, vault, NOW + 9, origin)
    assert done[0] == f"changed flows {flow_id('events')}"
    assert len(done) == 15
    assert {each.origin for each in everything(resources)} == {origin}
    assert len(everything(resources)) == 7


def test_a_new_password_is_kept(tmp_path: Path, resources: Resources, vault: SecretStore) -> None:
    """Only what changed is changed."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, vault, NOW, origin)
    fresh = file.load(Path(origin), ENVIRON | {"WHAT": "new"})
    done = from_config.apply(fresh, resources, vault, NOW, origin)
    assert [line.split()[:2] for line in done] == [["changed", "connections"]] * 3
    flows, _ = to_flow.flows(resources, vault, tmp_path, None)
    assert flows["events"].connection.password.reveal() == "new"


def test_a_lost_key_is_told_and_mended(
    tmp_path: Path, resources: Resources, vault: SecretStore
) -> None:
    """Flows whose passwords no key opens are problems, until their file is applied again."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, vault, NOW, origin)
    other = secret_store_of(tmp_path / "other")
    other.seal("what makes its key")
    flows, problems = to_flow.flows(resources, other, tmp_path, None)
    assert (flows, list(problems)) == ({}, ["events", "by-hand", "once"])
    assert "another key" in problems["events"]
    from_config.apply(loaded, resources, other, NOW, origin)
    assert len(to_flow.flows(resources, other, tmp_path, None)[0]) == 3


def test_one_flow_of_a_name(tmp_path: Path, resources: Resources, vault: SecretStore) -> None:
    """Another file's flow of the same name is refused, as long as that file is there."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, vault, NOW, origin)
    elsewhere = tmp_path / "moved.toml"
    with pytest.raises(InputError, match=f'flow "events" already, applied from {origin}'):
        from_config.apply(loaded, resources, vault, NOW, str(elsewhere))
    Path(origin).rename(elsewhere)
    from_config.apply(loaded, resources, vault, NOW, str(elsewhere))
    assert {each.origin for each in everything(resources)} == {str(elsewhere)}


def test_a_flow_named_as_a_clients_id(
    tmp_path: Path, resources: Resources, vault: SecretStore
) -> None:
    """What a client made is not a file's to change, whatever that calls its flows."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, vault, NOW, origin)
    made = new("flows", resources.get("flows", flow_id("events")).body, NOW)
    resources.create(made)
    before = everything(resources)
    other, _ = load(tmp_path, FILE.replace("flows.by-hand", f"flows.{made.id}"))
    with pytest.raises(InputError, match=f'flow "{made.id}" already, made by a client'):
        from_config.apply(other, resources, vault, NOW, origin)
    assert everything(resources) == before


def test_the_daemons_own_file_is_skipped(
    tmp_path: Path, resources: Resources, vault: SecretStore
) -> None:
    """What is applied from the daemon's own file does not run twice; a disabled flow not at all."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, vault, NOW, origin)
    assert to_flow.flows(resources, vault, tmp_path, origin) == ({}, {})

    def disable(before: Resource) -> tuple[Resource, list[str]]:
        return replace(before, body=before.body | {"state": "disabled"}), []

    resources.change("flows", flow_id("once"), None, NOW, disable)
    assert list(to_flow.flows(resources, vault, tmp_path, None)[0]) == ["events", "by-hand"]


def test_a_bad_flow_stops_no_other(
    tmp_path: Path, resources: Resources, vault: SecretStore
) -> None:
    """One that cannot be read is told of, and so is one with the table of another."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, vault, NOW, origin)
    body = resources.get("flows", flow_id("events")).body
    twin = new("flows", body | {"options": {"backfillFrom": "2024-01-01"}}, NOW)
    broken = new("flows", body | {"options": {"lookbackdays": 5}}, NOW)
    for each in (twin, broken):
        resources.create(each)
    flows, problems = to_flow.flows(resources, vault, tmp_path, None)
    assert list(flows) == ["events", "by-hand", "once"]
    assert 'the table of flow "events"' in problems[twin.id]
    assert (
        'options: lookbackdays: is not known here; did you mean "lookbackDays"?'
        in (problems[broken.id])
    )


@pytest.mark.parametrize("changed", ["deleted", "disabled", "moved"])
def test_a_flow_that_changes_while_it_is_read(
    tmp_path: Path, resources: Resources, vault: SecretStore, changed: str
) -> None:
    """One that is deleted with what it names cannot run, and nobody has to be told of it; one that
    names something else by now is read again.
    """
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, vault, NOW, origin)
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

    flows, problems = to_flow.flows(Raced(resources._catalog), vault, tmp_path, None)
    assert problems == {}
    assert ("events" in flows) == (changed == "moved")


def test_backfill_is_from_the_start(
    tmp_path: Path, resources: Resources, vault: SecretStore
) -> None:
    """`backfill` brings the history from the start time on; an option of ours says otherwise."""
    loaded, origin = load(tmp_path)
    from_config.apply(loaded, resources, vault, NOW, origin)
    made = resources.get("flows", flow_id("events"))
    schedule = {"startTime": "1625040887", "frequency": "DAY", "interval": "1", "backfill": "true"}

    def backfill(options: dict[str, str]) -> date | None:
        body = made.body | {"scheduleParams": schedule, "options": options}
        return to_flow.flow_of(replace(made, body=body), resources, vault, tmp_path).backfill_from

    assert backfill({}) == date(2021, 6, 30)
    assert backfill({"backfillFrom": "2024-01-01"}) == date(2024, 1, 1)
    schedule["backfill"] = "False"
    assert backfill({}) is None
