"""Mapping sets through the control plane: kept in versions, validated, previewed as a run would."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog.resources import new
from engine.mapping.expression.evaluator import Expression
from engine.mapping.expression.functions import FUNCTIONS
from engine.mapping.expression.operators import DECIDES, INFIX
from engine.model.flow import Connection, Flow, Run, Secret
from engine.model.window import Window
from engine.sync.pull import pull
from engine.sync.pull_task import Credentials, PullTask
from engine.sync.rejected_lines import RejectedLines
from engine.transform.schema import Schema
from engine.transform.validate import instance
from tests.support.api_client import MAPPING_SETS, SCHEMAS, SHIPPED, problem, served

Client = Any
Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
TUTORIAL: Json = json.loads((ROOT / "mappings/mixpanel-events.json").read_text()) | {
    "xdmSchema": SHIPPED  # in the place of the tutorial's placeholder
}
CASES = json.loads((ROOT / "mappings/mixpanel-events.cases.json").read_text())
ONE = {"sourceType": "ATTRIBUTE", "source": "event", "destination": "_extconndev.event_name"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with served(tmp_path_factory.mktemp("home")) as (client, _):
        yield client


def made(client: Client, **changes: Any) -> str:
    answer = client.post(MAPPING_SETS, json=TUTORIAL | changes)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_the_tutorials_call(client: Client) -> None:
    """200, 32 hexadecimal digits, and the keys of Data Prep's example."""
    assert (TUTORIAL["id"], TUTORIAL["version"], TUTORIAL["xdmVersion"]) == (None, 0, "1.0")
    answer = client.post(MAPPING_SETS, json=TUTORIAL)
    assert answer.status_code == 200
    found = answer.json()
    keys = ["id", "version", "createdDate", "modifiedDate", "createdBy", "modifiedBy"]
    assert list(found) == keys
    assert UUID(found["id"]).hex == found["id"]
    assert found["version"] == 0
    assert type(found["createdDate"]) is int


def test_both_names_of_everything(client: Client) -> None:
    """`outputSchema` is the newer word for `xdmSchema`; old and new names come back alike."""
    ref = {"id": SHIPPED, "contentType": "application/vnd.adobe.xed-full+json;version=1"}
    newer = {"outputSchema": {"schemaRef": ref}, "mappings": TUTORIAL["mappings"]}
    answers = []
    for body in (TUTORIAL, newer):
        id_ = client.post(MAPPING_SETS, json=body).json()["id"]
        answers.append(client.get(f"{MAPPING_SETS}/{id_}").json())
    for found in answers:
        assert found["xdmSchema"] == found["outputSchema"]["schemaRef"]["id"] == SHIPPED
        assert found["schemaRef"] == ref
        first = found["mappings"][0]
        assert first["source"] == first["sourceAttribute"] == "data.distinct_id"
        assert first["destination"] == first["destinationXdmPath"] == "_extconndev.distinct_id"
        told = {"identity": False, "primaryIdentity": False, "functionVersion": 1}
        assert first.items() >= told.items()


def test_old_names_alone_do(client: Client) -> None:
    """`sourceAttribute` and `destinationXdmPath` are answered under the new names too."""
    old = {"sourceAttribute": "data.time", "destinationXdmPath": "_extconndev.time"}
    id_ = made(client, mappings=[old])
    (found,) = client.get(f"{MAPPING_SETS}/{id_}/mappings").json()
    assert (found["source"], found["destination"]) == tuple(old.values())
    assert found["sourceType"] == "ATTRIBUTE"


def test_what_is_shown_can_be_put(client: Client) -> None:
    """A set as GET shows it is a set that PUT takes, and POST."""
    id_ = made(client, name="shown")
    shown = client.get(f"{MAPPING_SETS}/{id_}").json()
    assert client.post(MAPPING_SETS, json=shown).status_code == 200
    answer = client.put(f"{MAPPING_SETS}/{id_}", json=shown)
    assert answer.status_code == 200, answer.text
    again = answer.json()
    assert (again["id"], again["version"]) == (id_, 1)
    without = ("version", "modifiedDate", "mappings")
    assert {k: v for k, v in again.items() if k not in without} == {
        k: v for k, v in shown.items() if k not in without
    }


def test_versions(client: Client) -> None:
    """Each stays what it was; the newest is shown unless one is asked for."""
    id_ = made(client)
    path = f"{MAPPING_SETS}/{id_}"
    client.put(path, json=TUTORIAL | {"mappings": [ONE]})
    sizes = {
        query: len(client.get(f"{path}{query}").json()["mappings"])
        for query in ("", "?version=0", "?version=1")
    }
    assert sizes == {"": 1, "?version=0": 11, "?version=1": 1}
    assert len(client.get(f"{path}/mappings?version=0").json()) == 11
    assert "versions 0 to 1" in problem(client.get(f"{path}?version=2"), "1412-400")
    problem(client.get(f"{path}?version=-1"), "1400-400")


def test_single_mappings(client: Client) -> None:
    """Each has an id of its own, the same whenever it is asked for."""
    path = f"{MAPPING_SETS}/{made(client)}/mappings"
    every = client.get(path).json()
    assert len({each["id"] for each in every}) == 11
    assert client.get(f"{path}/{every[3]['id']}").json() == every[3]
    problem(client.get(f"{path}/none"), "1439-404")


def test_the_list(tmp_path: Path) -> None:
    """Pages by `start` and `limit`, filtered by name, in either order; each set once."""
    moments = iter(range(1_700_000_000_000, 1_800_000_000_000))
    with served(tmp_path, now=lambda: next(moments)) as (client, _):
        ids = [made(client, name=f"set {number % 2}") for number in range(5)]
        client.put(f"{MAPPING_SETS}/{ids[1]}", json=TUTORIAL | {"name": "set 1"})

        def listed(query: str) -> tuple[list[str], Json]:
            answer = client.get(f"{MAPPING_SETS}{query}").json()
            assert answer["_page"]["count"] == len(answer["data"])
            return [each["id"] for each in answer["data"]], answer

        assert listed("")[0] == [ids[1], ids[4], ids[3], ids[2], ids[0]]
        assert listed("?orderBy=%2BcreatedDate")[0] == listed("?orderBy=createdDate")[0] == ids
        assert listed("?orderBy=+createdDate")[0] == ids  # a `+` that nobody escaped
        assert listed("?orderBy=-createdDate")[0] == ids[::-1]
        assert set(listed("?name=set%201")[0]) == {ids[1], ids[3]}
        first, answer = listed("?limit=3&start=0&orderBy=createdDate")
        assert answer["_page"] == {"count": 3, "limit": 3}
        following = answer["_links"]["next"]["href"].removeprefix("/mappingSets")
        last, answer = listed(following)
        assert first + last == ids
        assert answer["_links"] == {}
        problem(client.get(f"{MAPPING_SETS}?orderBy=name"), "1400-400")
        problem(client.get(f"{MAPPING_SETS}?limit=0"), "1400-400")


def test_the_schema_in_it(client: Client) -> None:
    """`expandSchema` brings the schema's document."""
    path = f"{MAPPING_SETS}/{made(client)}"
    assert "jsonSchema" not in client.get(path).json()["outputSchema"]
    shown = client.get(f"{path}?expandSchema=true").json()
    assert shown["outputSchema"]["jsonSchema"]["$id"] == SHIPPED


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mappings": []}, "mappings"),
        ({"mappings": [3]}, "mappings"),
        ({"mappings": [ONE | {"sourceType": "EXPRESSION", "source": "1 +"}]}, "(character 4)"),
        ({"mappings": [ONE | {"destination": "_extconndev.none"}]}, "has no 'none'"),
        ({"mappings": [ONE, ONE]}, "keep one of them"),
        ({"mappings": [{}]}, "has no 'source'"),
        ({"mapings": []}, "did you mean mappings?"),
        ({"xdmSchema": "https://ns.adobe.com/x/schemas/none"}, "There is no schema https://ns"),
        ({"xdmSchema": None}, "names no schema"),
        ({"outputSchema": {"schemaRef": {"id": "another"}}}, "name two schemas"),
        ({"outputSchema": 3}, "outputSchema"),
    ],
)
def test_what_cannot_be_used(client: Client, changes: Json, words: str) -> None:
    """It is refused with a sentence, by POST and by PUT, and nothing is kept."""
    path, before = f"{MAPPING_SETS}/{made(client)}", client.get(MAPPING_SETS).json()
    for answer in (
        client.post(MAPPING_SETS, json=TUTORIAL | changes),
        client.put(path, json=TUTORIAL | changes),
    ):
        assert words in problem(answer, "1400-400")
    assert client.get(MAPPING_SETS).json() == before


def test_without_validation(client: Client) -> None:
    """aepp may ask for none: then the flow that uses the set finds what is wrong with it."""
    bad = TUTORIAL | {"mappings": [{}], "xdmSchema": "not made yet"}
    answer = client.post(f"{MAPPING_SETS}?validate=False", json=bad)
    assert answer.status_code == 200
    path = f"{MAPPING_SETS}/{answer.json()['id']}"
    shown = client.get(path).json()
    assert shown["mappings"][0]["source"] is None
    assert client.get(f"{path}?expandSchema=true").json() == shown


def test_what_is_not_there(client: Client) -> None:
    for call in (client.get, client.put):
        more = {"json": TUTORIAL} if call == client.put else {}
        problem(call(f"{MAPPING_SETS}/{'0' * 32}", **more), "1439-404")
    problem(client.get(f"{MAPPING_SETS}/{'0' * 32}/mappings"), "1439-404")
    assert client.patch(f"{MAPPING_SETS}/{made(client)}").status_code == 405  # as Data Prep


def test_a_files_set_stays_the_files(tmp_path: Path) -> None:
    """What was applied from a file is changed there."""
    with served(tmp_path) as (client, state):
        kept = new("mappingSets", {"versions": [TUTORIAL]}, 0, id_="0" * 32, origin="flows.toml")
        state.resources.create(kept)
        said = problem(client.put(f"{MAPPING_SETS}/{kept.id}", json=TUTORIAL), "1400-400")
        assert "flows.toml" in said


# Validation ---------------------------------------------------------------------------------


def validated(client: Client, *mappings: Json) -> list[Json]:
    answer = client.post(
        f"{MAPPING_SETS}/validate", json={"xdmSchema": SHIPPED, "mappings": list(mappings)}
    )
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["validationResponse"]
    return found


def test_validation(client: Client) -> None:
    """One verdict a mapping, in their order, each with its own errors."""
    fine = {"status": "SUCCESS", "errors": None}
    assert validated(client, *TUTORIAL["mappings"]) == [fine] * 11
    wrong = {"source": "lowr(event)", "destination": "_extconndev.none"}
    expression = ONE | {"sourceType": "EXPRESSION"} | wrong
    first, second, third = validated(client, ONE, expression, ONE | {"source": "data.event_name"})
    assert first == fine
    assert [second["status"], third["status"]] == ["FAILED"] * 2
    assert [error["exception"][:10] for error in second["errors"]] == ["there is n", "destinatio"]
    assert second["errors"][0].items() >= expression.items()
    (error,) = third["errors"]
    assert "mappings[0] writes '_extconndev.event_name' too" in error["exception"]


MAPPINGS = st.fixed_dictionaries(
    {},
    optional={
        "sourceType": st.sampled_from(["ATTRIBUTE", "STATIC", "EXPRESSION", "", 3]),
        "source": st.sampled_from(["event", "data.a[*]", "data.event_name", "${x", ""]),
        "destination": st.sampled_from(["_extconndev.time", "_extconndev.item_id", "none", ""]),
    },
)


@settings(deadline=None, max_examples=50)
@given(st.lists(MAPPINGS, min_size=1, max_size=4))
def test_validation_and_creation_agree(client: Client, mappings: list[Json]) -> None:
    """A set can be made if and only if each of its mappings is fine."""
    verdicts = validated(client, *mappings)
    assert len(verdicts) == len(mappings)
    status = client.post(MAPPING_SETS, json=TUTORIAL | {"mappings": mappings}).status_code
    assert (status == 200) == all(each["status"] == "SUCCESS" for each in verdicts)


# Preview ------------------------------------------------------------------------------------


def previewed(client: Client, records: list[bytes], mapping_set: Json) -> list[Json]:
    """The rows for records that are sent byte for byte."""
    data, rest = b",".join(records), json.dumps(mapping_set).encode()
    answer = client.post(
        f"{MAPPING_SETS}/preview", content=b'{"data":[%b],"mappingSet":%b}' % (data, rest)
    )
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()
    return found


def test_the_shipped_cases(client: Client) -> None:
    """The records of the mapping set's own cases give the rows that stand beside them."""
    cases = [case for case in CASES if case["output"]]
    records = [json.dumps(case["input"]).encode() for case in cases]
    assert len(records) > 5
    rows = previewed(client, records, TUTORIAL)
    assert [row["data"] for row in rows] == [case["output"] for case in cases]


def test_what_is_wrong_belongs_to_its_record(client: Client) -> None:
    """A failed cast loses its value alone; what breaks the schema has no row."""
    properties = {"time": 1, "import": "perhaps"}
    records: list[Json] = [
        {"event": "a", "properties": properties},
        {"event": "b", "properties": {}},
        {"event": "c"},
        {"event": "d", "properties": {"time": 2}},
    ]
    cast, broken, none, fine = previewed(
        client, [json.dumps(each).encode() for each in records], TUTORIAL
    )
    assert cast["data"] == {"_extconndev": {"event_name": "a", "time": 1}}
    assert cast["errors"] == [
        {
            "destination": "_extconndev.import",
            "exception": "a value of it cannot be cast to boolean; it is left out",
        }
    ]
    assert broken == {
        "data": None,
        "errors": [
            {"destination": "_extconndev", "exception": "'time' is a required property"},
        ],
    }
    assert none["data"] is None
    assert "not an event" in none["errors"][0]["exception"]
    assert fine == {"data": {"_extconndev": {"event_name": "d", "time": 2}}, "errors": None}


def test_one_record_alone(client: Client) -> None:
    """Data Prep's example has the record itself in the place of the list."""
    body = {"data": {"event": "a", "properties": {"time": 1}}, "mappingSet": TUTORIAL}
    (row,) = client.post(f"{MAPPING_SETS}/preview", json=body).json()
    assert row["data"] == {"_extconndev": {"event_name": "a", "time": 1}}


def test_records_stay_as_they_were_sent(client: Client) -> None:
    """A long number keeps its digits, a key that occurs twice is seen; lines may be broken."""
    long = b'{"event": "a",\r\n "properties":\n {"time": 1, "item_id": 123456789012345678901234}}'
    twice = b'{"event": "a", "properties": {"time": 1, "time": 2}}'
    first, second = previewed(client, [long, twice], TUTORIAL)
    assert first["data"]["_extconndev"]["item_id"] == "123456789012345678901234"
    assert second["data"] is None
    assert "not an event" in second["errors"][0]["exception"]


def test_a_row_of_nothing_is_a_row(client: Client) -> None:
    """Where the schema demands nothing, a record that has nothing of it is no reject."""
    schema = client.post(SCHEMAS, json={"title": "a", "properties": {"a": {"type": "string"}}})
    mapping = {
        "xdmSchema": schema.json()["$id"],
        "mappings": [{"source": "data.a", "destination": "a"}],
    }
    assert previewed(client, [b'{"event": "a", "properties": {}}'], mapping) == [
        {"data": {}, "errors": None}
    ]


def test_a_hundred_records_at_most(client: Client) -> None:
    record = json.dumps({"event": "a", "properties": {"time": 1}}).encode()
    assert len(previewed(client, [record] * 100, TUTORIAL)) == 100
    body = {"data": [json.loads(record)] * 101, "mappingSet": TUTORIAL}
    problem(client.post(f"{MAPPING_SETS}/preview", json=body), "1400-400")


FIELDS: Json = {
    "id": {"type": "string"},
    "text": {"type": "string", "maxLength": 4},
    "long": {"type": "integer"},
    "number": {"type": "number", "minimum": 0},
    "flag": {"type": "boolean"},
    "when": {"type": "string", "format": "date-time"},
    "day": {"type": "string", "format": "date"},
    "list": {"type": "array", "items": {"type": "integer"}},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "inner": {
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}},
    },
}
TYPED = {
    "title": "typed",
    "type": "object",
    "properties": {"_t": {"type": "object", "properties": FIELDS, "required": ["id"]}},
}
EACH = [{"source": f"data.{name}", "destination": f"_t.{name}"} for name in FIELDS]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.sampled_from(["yes", "12", "1.5", "2024-01-31", "2024-01-31T10:00:00Z"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=5,
)
PROPERTIES = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, VALUES))
RECORDS = st.fixed_dictionaries({"event": VALUES, "properties": PROPERTIES | VALUES}) | VALUES


@settings(deadline=None, max_examples=30)
@given(st.lists(RECORDS, min_size=1, max_size=8))
def test_preview_is_what_a_run_does(
    client: Client, tmp_path_factory: pytest.TempPathFactory, records: list[Any]
) -> None:
    """The rows of any records are those that a run writes, and it rejects those that have none."""
    for number, record in enumerate(records):  # none is another one's duplicate
        if isinstance(record, dict) and isinstance(record.get("properties"), dict):
            record["properties"] |= {"id": str(number), "$insert_id": str(number)}
    lines = [json.dumps(each).encode() for each in records]
    schema = client.post(SCHEMAS, json=TYPED).json()["$id"]
    mapping = {"xdmSchema": schema, "mappings": EACH}
    rows = [row["data"] for row in previewed(client, lines, mapping)]

    directory = tmp_path_factory.mktemp("run") / "staged"
    connection = Connection("http://127.0.0.1:1", "nobody", Secret("none"), 1)
    flow = Flow("typed", connection, "none", partial_ingestion_percent=100)
    window = Window(date(2024, 1, 1), date(2024, 1, 1))
    run = Run("run", "typed", window, "batch", 0)
    folder = tmp_path_factory.mktemp("rejects")
    why = [{"code": "any", "message": "any"}]
    entries = [json.dumps({"_corrupt_record": line.decode(), "_errors": why}) for line in lines]
    (folder / "1.json").write_text("\n".join(entries), encoding="utf-8")
    days = tuple(window.days)
    rejects = RejectedLines(str(folder), days, frozenset(days))
    task = PullTask.of(flow, ("m", mapping), ("s", TYPED), run, directory, rejects=rejects)
    staged = pull(task, Credentials.of(connection))

    root = Schema.parse("typed", TYPED).root
    written = [
        instance(root, row)
        for file in directory.rglob("*.parquet")
        for row in pq.read_table(file, columns=["_t"]).to_pylist()
    ]
    assert sorted(map(json.dumps, written)) == sorted(json.dumps(row) for row in rows if row)
    assert staged.tally.rejected == rows.count(None)


ELANGUAGE = "/data/foundation/conversion/languages/el"


def test_an_expression_is_judged(client: Client) -> None:
    """200 either way, with all that is wrong; 400 for a body without one."""
    answer = client.post(f"{ELANGUAGE}/validate", json={"expression": "lower(data.a)"})
    assert answer.json() == {"validationStatus": "succeeded", "error": "none"}
    answer = client.post(f"{ELANGUAGE}/validate", json={"expression": "lowr(data.a) + upper(x)"})
    assert answer.status_code == 200
    assert answer.json()["validationStatus"] == "failed"
    assert answer.json()["error"].count("(character ") == 2
    assert client.post(f"{ELANGUAGE}/validate", json={}).status_code == 400


def test_the_language_lists_its_functions_and_operators(client: Client) -> None:
    """From the tables that evaluate them, in the documented shape."""
    functions = client.get(f"{ELANGUAGE}/functions").json()
    named = {each["function"]: each for each in functions}
    assert len(functions) == len(FUNCTIONS) - 4  # three methods, and one that is refused
    assert set(named["first"]) == {
        *("category", "function", "description", "syntax", "returns", "returnType"),
        *("example", "result", "params", "since"),
    }
    assert named["first"]["result"] == "1"
    operators = client.get(f"{ELANGUAGE}/operators").json()
    symbols = {each["operatorSymbol"] for each in operators}
    assert symbols >= {*INFIX, *DECIDES}
    for each in operators:
        Expression(each["example"])
