"""Connections through HTTP: created, shown, patched and deleted; errors have their numbers."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from threading import Barrier, Thread
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.catalog.resources import Resource
from engine.control.api.etag_checks import Preconditions
from engine.control.api.json_patch import patched
from engine.control.api.problems import Problem
from engine.control.api.resource_routes import changed
from engine.errors import EtagMismatch
from tests.support.api_server import MIXPANEL, PASSWORD, Answer, Json, Served, serving, tutorial

LATER = "fd2c8ff3-1de0-4f6b-8fa8-4264784870eb"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("api")) as served:
        yield served


def make(api: Served, kind: str) -> str:
    """Create a valid connection; return its id."""
    if kind == "connections":
        return api.connection()
    return api.source() if kind == "sourceConnections" else api.target()


def edited(body: Json, path: str, value: Any = ...) -> Json:
    """Return a body with another value at a path, or without the path."""
    *way, last = path.split("/")
    at = body = json.loads(json.dumps(body))
    for step in way:
        at = at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return body


# Made and shown -----------------------------------------------------------------------------


def test_a_connection_comes_back_without_its_password(api: Served) -> None:
    """A connection is shown as in the examples, without its password, which is only in the secret
    store.
    """
    body = tutorial("connections")
    body["auth"]["params"]["password"] = PASSWORD
    made = api.call("POST", "/connections", body)
    assert made.status == 201
    assert set(made.body) == {"id", "etag"}
    assert made.body["etag"][0] == made.body["etag"][-1] == '"'
    shown = api.show("connections", made.body["id"])
    assert shown.pop("createdAt") == shown.pop("updatedAt") > 1_600_000_000_000
    body["auth"]["params"]["password"] = "xxxx"
    assert shown == body | {
        "id": made.body["id"],
        "createdBy": "mixpanel-etl",
        "updatedBy": "mixpanel-etl",
        "createdClient": "mixpanel-etl",
        "updatedClient": "mixpanel-etl",
        "sandboxId": "860bcd4b-3206-5d0b-be70-056ccffbdd51",
        "sandboxName": "prod",
        "imsOrgId": "mixpanel-etl",
        "state": "enabled",
        "version": made.body["etag"],
        "etag": made.body["etag"],
    }
    listed = api.call("GET", f"/connections?property=id=={made.body['id']}").body
    assert [each["id"] for each in listed["items"]] == [made.body["id"]]
    kept = api.state.resources.get("connections", made.body["id"])
    assert PASSWORD not in repr(kept)
    assert kept.secret is not None
    assert api.state.secret_store.decrypt(kept.secret) == {"password": PASSWORD}


@pytest.mark.parametrize("kind", ["connections", "sourceConnections", "targetConnections"])
def test_create_show_rename_delete(api: Served, kind: str) -> None:
    """A connection is created, shown, renamed and deleted, and then not found."""
    id_ = make(api, kind)
    etag = api.show(kind, id_)["etag"]
    rename = [{"op": "REPLACE", "path": "/name", "value": "new"}]
    changed = api.call("PATCH", f"/{kind}/{id_}/", rename, etag.strip('"'))
    assert (changed.status, set(changed.body)) == (200, {"id", "etag"})
    assert api.show(kind, id_)["name"] == "new"
    assert api.show(kind, id_)["etag"] == changed.body["etag"] != etag
    assert (api.call("DELETE", f"/{kind}/{id_}").status) == 204
    gone = api.call("GET", f"/{kind}/{id_}")
    assert (gone.status, gone.code, gone.body["report"]["type"]) == (404, "1439-404", kind)
    assert api.call("DELETE", f"/{kind}/{id_}").code == "1439-404"


def test_what_both_kinds_of_clients_send_is_taken(api: Served) -> None:
    """Both specification ids, both names of the authentication, numbers as texts or not."""
    for spec in (MIXPANEL, LATER):
        for name in ("OAuth2 Refresh Code", "Basic Authentication"):
            body = edited(tutorial("connections"), "connectionSpec/id", spec)
            base = api.make("connections", edited(body, "auth/specName", name))
        source = edited(tutorial("sourceConnections"), "connectionSpec/id", spec)
        source["baseConnectionId"] = base
        for project in (2384945, "2384945"):
            for zone in ("Pacific Standard Time", "America/Los_Angeles", project, str(project)):
                params = {"projectId": project, "timezone": zone, "events": ["a"], "where": "b"}
                id_ = api.make("sourceConnections", source | {"params": params})
                assert api.show("sourceConnections", id_)["params"] == params
    for host in ("eu", "https://data-in.mixpanel.com/", "http://127.0.0.1:8080"):
        api.connection(host)
    api.make("connections", edited(tutorial("connections"), "auth/params/host"))


def test_read_only_fields_are_our_own(api: Served) -> None:
    """Read-only fields of a posted item are ignored: the new resource has its own."""
    shown = api.show("connections", api.connection())
    shown["auth"]["params"]["password"] = PASSWORD
    id_ = api.make("connections", shown)
    assert id_ != shown["id"]
    assert api.show("connections", id_)["etag"] != shown["etag"]


BASE, SOURCE, TARGET = "connections", "sourceConnections", "targetConnections"


@pytest.mark.parametrize(
    ("kind", "path", "value", "code"),
    [
        (BASE, "connectionSpec/id", "c604ff05-7f1a-43c0-8e18-33bf874cb11c", "1413-400"),
        (BASE, "connectionSpec", ..., "1413-400"),
        (BASE, "connectionSpec", "x", "1400-400"),
        (BASE, "auth/specName", "authConnection", "1415-400"),
        (BASE, "auth", ..., "1304-400"),
        (BASE, "auth/params", ..., "1304-400"),
        (BASE, "auth/params/username", ..., "1304-400"),
        (BASE, "auth/params/password", ..., "1304-400"),
        (BASE, "auth/params/password", "", "1304-400"),
        (BASE, "auth/params/password", "xxxx", "1304-400"),
        (BASE, "auth/params/password", {"env": "PATH"}, "1304-400"),
        (BASE, "auth/params/username", {"env": "PATH"}, "1304-400"),
        (BASE, "auth/params/host", {"env": "PATH"}, "1400-400"),
        (BASE, "auth/params/username", "a:b", "1400-400"),
        (BASE, "auth/params/host", "ftp://x", "1400-400"),
        (BASE, "name", 7, "1400-400"),
        (SOURCE, "connectionSpec/id", "x", "1413-400"),
        (SOURCE, "baseConnectionId", ..., "1338-400"),
        (SOURCE, "baseConnectionId", "aa6a206f", "1439-404"),
        (SOURCE, "data", ..., "1359-400"),
        (SOURCE, "data/format", "delimited", "1327-400"),
        (SOURCE, "params", ..., "1359-400"),
        (SOURCE, "params/projectId", ..., "1359-400"),
        (SOURCE, "params/projectId", "x", "1400-400"),
        (SOURCE, "params/projectId", True, "1400-400"),
        (SOURCE, "params/timezone", "Pacific", "1400-400"),
        (SOURCE, "params/events", "all", "1400-400"),
        (SOURCE, "params/where", 7, "1400-400"),
        (TARGET, "connectionSpec/id", MIXPANEL, "1307-400"),
        (TARGET, "data", ..., "1359-400"),
        (TARGET, "params/dataSetId", ..., "1325-400"),
        (TARGET, "params/dataSetId", "64ef1a3c0ef", "1439-404"),
    ],
)
def test_an_invalid_body_is_refused(
    api: Served, kind: str, path: str, value: Any, code: str
) -> None:
    """An invalid body is refused by POST and by PATCH with the same number, and not stored."""
    id_ = make(api, kind)
    before = api.show(kind, id_)
    good = json.loads(json.dumps({name: before[name] for name in tutorial(kind)}))
    if kind == BASE:
        good["auth"]["params"]["password"] = PASSWORD
    wrong = api.call("POST", f"/{kind}", edited(good, path, value))
    assert wrong.code == code, wrong.text
    assert PASSWORD not in wrong.text
    change = {"op": "remove"} if value is ... else {"op": "add", "value": value}
    change["path"] = f"/{path}"
    patch = api.call("PATCH", f"/{kind}/{id_}", [change], before["etag"])
    if path.partition("/")[0] in ("connectionSpec", "baseConnectionId"):
        code = "1414-400" if path.startswith("connectionSpec") else "1365-400"
    kept = value == "xxxx"  # what was shown is what was there
    assert patch.status == 200 if kept else patch.code == code, patch.text
    assert kept or api.show(kind, id_) == before


def test_a_project_number_as_time_zone_is_logged(
    api: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """The project's number as time zone means UTC, and a warning is logged."""
    id_ = api.source(timezone="2384945")
    said = capsys.readouterr()
    assert id_ in said.out + said.err


def test_responses_are_not_delayed_by_nagle(api: Served) -> None:
    """A second response on a connection comes at once, not after a delayed ACK of 40 ms."""
    took = []
    for _ in range(10):
        began = time.monotonic()
        api.call("GET", "/connections?count=true")
        took.append(time.monotonic() - began)
    assert min(took[1:]) < 0.03


# Patched ------------------------------------------------------------------------------------


def test_the_tutorials_new_credentials(api: Served) -> None:
    """New credentials without a host keep the host; unknown fields of them are secrets."""
    id_ = api.connection("eu")
    new = [{"op": "replace", "path": "/auth/params", "value": {
        "username": "u", "password": "new-password", "securityToken": "new-token"}}]  # fmt: skip
    etag = api.show("connections", id_)["etag"]
    answer = api.call(
        "PATCH", f"/connections/{id_}", json.dumps(new), etag,
    )  # fmt: skip
    assert answer.status == 200, answer.text
    shown = api.show("connections", id_)["auth"]["params"]
    assert shown == {
        "host": "eu", "username": "u", "password": "xxxx", "securityToken": "xxxx",
    }  # fmt: skip
    back = [{"op": "replace", "path": "/auth/params", "value": shown}]
    assert api.call("PATCH", f"/connections/{id_}", back, answer.body["etag"]).status == 200
    kept = api.state.resources.get("connections", id_)
    assert kept.secret is not None
    secret = api.state.secret_store.decrypt(kept.secret)
    assert secret == {"password": "new-password", "securityToken": "new-token"}
    gone = [
        {"op": "remove", "path": "/auth/params/host"},
        {"op": "remove", "path": "/auth/params/securityToken"},
        {"op": "replace", "path": "/auth/params/password", "value": PASSWORD},
    ]
    assert api.call("PATCH", f"/connections/{id_}", gone, f'"{kept.etag}"').status == 200
    assert "host" not in api.show("connections", id_)["auth"]["params"]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/auth/params/host", "http://127.0.0.1:9"),
        ("/auth/params/host", ...),
        ("/auth/params/username", "v"),
        ("/auth/params", {"host": "http://127.0.0.1:9"}),
        ("/auth/params", {"username": "v"}),
        ("/auth/params", {"host": "http://127.0.0.1:9", "password": "new"}),  # and not the token
        ("/auth", {"host": "http://127.0.0.1:9"}),
    ],
)
def test_a_stored_secret_goes_nowhere_else(api: Served, path: str, change: Any) -> None:
    """P7: a masked secret stays for the same host and user only; for another one it must be given
    again.
    """
    id_ = api.connection("eu")
    token = [{"op": "add", "path": "/auth/params/token", "value": "of-nobody"}]
    assert api.call("PATCH", f"/connections/{id_}", token, "*").status == 200
    before = api.show("connections", id_)
    params = before["auth"]["params"]
    value = params | change if isinstance(change, dict) else change
    if path == "/auth":
        value = before["auth"] | {"params": value}
    patch = {"op": "remove"} if change is ... else {"op": "replace", "value": value}
    answer = api.call("PATCH", f"/connections/{id_}", [patch | {"path": path}], before["etag"])
    assert answer.code == "1304-400", answer.text
    assert "provide it again" in answer.body["errorMessage"]
    assert api.show("connections", id_) == before
    again = [
        patch | {"path": path},
        {"op": "replace", "path": "/auth/params/password", "value": PASSWORD},
        {"op": "replace", "path": "/auth/params/token", "value": "of-nobody"},
    ]
    assert api.call("PATCH", f"/connections/{id_}", again, before["etag"]).status == 200


def test_a_secret_stays_where_nothing_else_is_changed(api: Served) -> None:
    """A masked secret stays if the host is the same in another spelling, or by default."""
    for before, after in (("eu", "https://data-eu.mixpanel.com"), ("us", None)):
        id_ = api.connection(before)
        params = api.show("connections", id_)["auth"]["params"] | {"host": after}
        value = {"specName": "Basic Authentication", "params": params}
        patch = [{"op": "replace", "path": "/auth", "value": value}]
        assert api.call("PATCH", f"/connections/{id_}", patch, "*").status == 200
        kept = api.state.resources.get("connections", id_).secret
        assert kept is not None
        assert api.state.secret_store.decrypt(kept) == {"password": PASSWORD}


def test_a_lost_key_wants_the_password_again(api: Served) -> None:
    """With a lost key a connection is shown and deleted as before, and needs its password again."""
    id_ = api.connection()

    def lose(before: Resource) -> tuple[Resource, list[str]]:
        return replace(before, secret=b"sealed with another key"), []

    api.state.resources.change("connections", id_, None, 0, lose)
    rename = [{"op": "replace", "path": "/name", "value": "new"}]
    assert api.call("PATCH", f"/connections/{id_}", rename, "*").code == "1304-400"
    mend = [{"op": "replace", "path": "/auth/params/password", "value": PASSWORD}]
    assert api.call("PATCH", f"/connections/{id_}", mend, "*").status == 200
    assert api.call("PATCH", f"/connections/{id_}", rename, "*").status == 200
    api.state.resources.change("connections", id_, None, 0, lose)
    assert api.show("connections", id_)["auth"]["params"]["password"] == "xxxx"
    assert api.call("DELETE", f"/connections/{id_}").status == 204


@pytest.mark.parametrize(
    ("body", "etag", "code"),
    [
        ([{"op": "replace", "path": "/name", "value": "x"}], None, "1403-400"),
        ([{"op": "replace", "path": "/name", "value": "x"}], '""', "1403-400"),
        ([{"op": "replace", "path": "/name", "value": "x"}], '"stale"', "1404-412"),
        ([{"op": "replace", "path": "/name", "value": "x"}], "stale", "1404-412"),
        ("", ..., "1405-400"),
        ("null", ..., "1405-400"),
        ([], ..., "1405-400"),
        ("{", ..., "1400-400"),
        ({}, ..., "1400-400"),
        (["x"], ..., "1400-400"),
        ([{"op": "move", "path": "/name", "from": "/description"}], ..., "1434-400"),
        ([{"op": "test", "path": "/name", "value": "x"}], ..., "1434-400"),
        ([{"path": "/name", "value": "x"}], ..., "1434-400"),
        ([{"op": "replace", "value": "x"}], ..., "1365-400"),
        ([{"op": "replace", "path": "", "value": {}}], ..., "1365-400"),
        ([{"op": "replace", "path": "name", "value": "x"}], ..., "1365-400"),
        ([{"op": "replace", "path": "/etag", "value": "x"}], ..., "1365-400"),
        ([{"op": "replace", "path": "/state", "value": "x"}], ..., "1365-400"),
        ([{"op": "replace", "path": "/connectionSpec/id", "value": "x"}], ..., "1414-400"),
        ([{"op": "replace", "path": "/name"}], ..., "1455-400"),
        ([{"op": "replace", "path": "/auth/nothing", "value": "x"}], ..., "1455-400"),
        ([{"op": "remove", "path": "/name/x"}], ..., "1455-400"),
        ([{"op": "add", "path": "/auth/a/b", "value": "x"}], ..., "1455-400"),
    ],
)
def test_an_invalid_patch_is_refused(api: Served, body: Any, etag: Any, code: str) -> None:
    """An invalid patch is refused with its number and changes nothing."""
    id_ = api.connection()
    before = api.show("connections", id_)
    answer = api.call("PATCH", f"/connections/{id_}", body, before["etag"] if etag is ... else etag)
    assert answer.code == code, answer.text
    assert api.show("connections", id_) == before


def test_json_whatever_its_type(api: Served) -> None:
    """A body is JSON whatever its content type: `curl -d` calls it a form."""
    id_ = api.connection()
    etag = api.show("connections", id_)["etag"]
    answer = httpx.patch(
        f"{api.url}/data/foundation/flowservice/connections/{id_}",
        content='[{"op": "Add", "path": "/description", "value": "x"}]',
        headers={"If-Match": etag, "Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 200
    assert api.show("connections", id_)["description"] == "x"


def test_of_two_writers_one_wins(api: Served) -> None:
    """Of two changes of one version, the second is refused as stale."""
    id_ = api.connection()
    etag = api.show("connections", id_)["etag"]
    answers, together = list[Answer](), Barrier(2)

    def write(name: str) -> None:
        together.wait()
        patch = [{"op": "replace", "path": "/name", "value": name}]
        answers.append(api.call("PATCH", f"/connections/{id_}", patch, etag))

    writers = [Thread(target=write, args=[name]) for name in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    won, lost = sorted(answers, key=lambda answer: answer.status)
    assert (won.status, lost.status, lost.code) == (200, 412, "1404-412")
    assert api.show("connections", id_)["etag"] == won.body["etag"]


def test_a_change_that_is_overtaken_is_stale(api: Served) -> None:
    """A change is refused if the resource changed while it was checked."""
    id_ = api.connection()

    def edit(before: Resource) -> Resource:
        patch = [{"op": "replace", "path": "/name", "value": "first"}]
        assert api.call("PATCH", f"/connections/{id_}", patch, "*").status == 200
        return before

    with pytest.raises(EtagMismatch):
        changed(api.state, "connections", id_, Preconditions(), edit)
    assert api.show("connections", id_)["name"] == "first"


def test_what_is_in_use_stays(api: Served) -> None:
    """A base connection, source or target of a flow cannot be deleted before the flow."""
    body = api.flow_body()
    flow = api.make("flows", body)
    (source,), (target,) = body["sourceConnectionIds"], body["targetConnectionIds"]
    base = api.show("sourceConnections", source)["baseConnectionId"]
    for path, code in (
        (f"/connections/{base}", "1418-400"),
        (f"/sourceConnections/{source}", "1447-400"),
        (f"/targetConnections/{target}", "1447-400"),
    ):
        answer = api.call("DELETE", path)
        assert answer.code == code
        kind, id_ = path[1:].split("/")
        said = f"The {kind[:-1]} {id_} is used by the flow {flow}. Delete that first."
        assert answer.body["errorMessage"] == said
    assert api.call("DELETE", f"/flows/{flow}").status == 204
    assert api.call("DELETE", f"/connections/{base}").status == 204
    again = api.call("POST", "/flows", body)
    assert (again.code, again.body["report"]["id"]) == ("1439-404", base)


def test_a_connection_of_a_file_is_changed_there(api: Served) -> None:
    """A connection of a configuration file is shown, and changed in the file only."""
    id_ = api.connection()

    def apply(before: Any) -> Any:
        return replace(before, origin=__file__), []

    api.state.resources.change("connections", id_, None, 0, apply)
    etag = api.show("connections", id_)["etag"]
    patch = [{"op": "replace", "path": "/name", "value": "x"}]
    for answer in (
        api.call("PATCH", f"/connections/{id_}", patch, etag),
        api.call("DELETE", f"/connections/{id_}"),
    ):
        assert (answer.code, __file__ in answer.text) == ("1400-400", True)


# Any patch ----------------------------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)
STEPS = st.sampled_from(["a", "b", "0", "1", "-", "01", "~1", "~0", ""]) | st.text(max_size=2)
PATHS = st.lists(STEPS, max_size=3).map(
    lambda steps: "/" + "/".join(["a", *(s.replace("~", "~0").replace("/", "~1") for s in steps)])
)
PATCHES = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "replace", "remove"]), "path": PATHS, "value": VALUES}
    ),
    min_size=1,
    max_size=4,
)


def modelled(document: Any, op: str, path: str, value: Any) -> None:
    """Apply a patch by a plain model of RFC 6902; LookupError for one that does not apply."""
    *way, last = (step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:])
    for step in way:
        document = document[index(document, step) if isinstance(document, list) else step]
    if isinstance(document, dict):
        if op != "add" and last not in document:
            raise LookupError
        if op == "remove":
            del document[last]
        else:
            document[last] = value
    elif isinstance(document, list):
        if op == "add":
            at = len(document) if last == "-" else index(document, last, 1)
            document.insert(at, value)
        elif op == "remove":
            del document[index(document, last)]
        else:
            document[index(document, last)] = value
    else:
        raise TypeError(last)


def index(document: list[Any], step: str, beyond: int = 0) -> int:
    if not step.isascii() or not step.isdigit() or (step[0] == "0" and step != "0"):
        raise LookupError
    if int(step) >= len(document) + beyond:
        raise LookupError
    return int(step)


@settings(deadline=None)
@given(document=st.fixed_dictionaries({"a": VALUES}), patch=PATCHES)
def test_any_patch_is_what_the_rfc_says(document: Json, patch: list[Json]) -> None:
    """A patch gives the result of a plain model of RFC 6902, or is refused without a change."""
    before, want = json.dumps(document), json.loads(json.dumps(document))
    try:
        for each in json.loads(json.dumps(patch)):
            modelled(want, each["op"], each["path"], each["value"])
    except (LookupError, TypeError):
        want = "1455-400"
    try:
        have: Any = patched(document, [each | {"op": each["op"].upper()} for each in patch], ("a",))
    except Problem as problem:
        have = problem.code
    assert have == want
    assert json.dumps(document) == before


NAMES = st.sampled_from(
    ["/name", "/description", "/auth", "/auth/params", "/auth/params/password", "/auth/specName",
     "/auth/params/host", "/auth/params/username", "/auth/params/token", "/auth/x/y", "/data",
     "/data/format", "/params", "/params/projectId", "/params/timezone", "/params/dataSetId",
     "/params/events/0", "/scheduleParams", "/scheduleParams/frequency", "/scheduleParams/interval",
     "/scheduleParams/startTime", "/scheduleParams/backfill", "/transformations/0",
     "/transformations/0/params", "/transformations/0/params/mappingVersion", "/transformations/-",
     "/options", "/options/lookbackDays", "/connectionSpec", "/state", "/id", "", "/"]
)  # fmt: skip
ANY = st.lists(
    st.dictionaries(st.sampled_from(["op", "path", "value", "from"]), VALUES | NAMES, max_size=4)
    | st.fixed_dictionaries(
        {
            "op": st.sampled_from(["add", "REPLACE", "Remove", "copy", "test"]),
            "path": NAMES,
            "value": VALUES | st.sampled_from(["xxxx", "once", 15, "minute", {"password": "xxxx"}]),
        }
    ),
    max_size=3,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_patch_breaks_anything(api: Served, shared: dict[str, str], data: st.DataObject) -> None:
    """Whatever the patch: never a 5xx, never a secret, and always an item that is shown."""
    kind = data.draw(st.sampled_from(sorted(shared)))
    path = f"/{kind}/{shared[kind]}"
    patch = data.draw(ANY)
    answer = api.call("PATCH", path, patch, "*")
    after = api.call("GET", path)
    assert answer.status in (200, 400)
    assert after.status == 200
    assert PASSWORD not in answer.text + after.text
    assert after.body["items"][0]["id"] == shared[kind]


@pytest.fixture(scope="module")
def shared(api: Served) -> dict[str, str]:
    """One resource of each kind."""
    made = {"connections": api.connection(), "sourceConnections": api.source()}
    made["targetConnections"] = api.target()
    made["flows"] = api.make("flows", api.flow_body())
    return made
