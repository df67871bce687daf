"""Lists: their parameters, the items of a page, and pages without gap or overlap."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cmp_to_key
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import QueryParams
from starlette.requests import Request

from engine.catalog.database import Catalog
from engine.control.api import listing, runs
from engine.control.api.listing_filter import is_number, matches
from engine.control.api.listing_order import compare_keys, sort_key
from engine.control.api.problems import Problem
from engine.control.run_payload import payload
from engine.model.flow import Connection, Secret, flow_id
from engine.model.run_record import FAILED, IN_PROGRESS, SUCCESS
from engine.model.window import Window
from tests.support.records import record

Json = dict[str, Any]
QUICK = settings(max_examples=40, deadline=None)


def page(items: list[Json], query: str) -> Json:
    """The answer to GET /things with that query."""
    scope = {"type": "http", "query_string": query.encode(), "headers": []}
    return listing.page(Request(scope), "things", items)


def shown(items: list[Json], query: str) -> list[Any]:
    return [item["id"] for item in page(items, query)["items"]]


FLOW = {
    "id": "a",
    "createdAt": 5,
    "name": "Orders",
    "state": "enabled",
    "sourceConnectionIds": ["s1", "S2"],
    "scheduleParams": {"startTime": "1625040887", "interval": 15, "backfill": True},
    "transformations": [{"name": "Mapping", "params": {"mappingId": "m1", "mappingVersion": "0"}}],
    "lastRunDetails": {"startedAtUTC": 1670880253121},
}

# What the guide to sorting and filtering shows ---------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "",
        "property=state==enabled&orderby=createdAt",
        "property=state%3D%3Denabled",
        "property=state==ENABLED",
        "property=id==x,A",
        "property=createdAt>4&property=createdAt<6",
        "property=createdAt>=5&property=createdAt<=5",
        "property=createdAt==5",
        "property=sourceConnectionIds[]==s2,q",
        "property=transformations[].params.mappingId==m1",
        "property=scheduleParams.startTime>=1625040887",
        "property=scheduleParams.interval==15",
        "property=scheduleParams.backfill==TRUE",
        "property=lastRunDetails.startedAtUTC>=1670880253121",
        "property=name%20==%20orders",
        "limit=10&count=False",
        "count=false",
        "orderBy=%2Bname",
        "orderby=+name,-createdAt",
    ],
)
def test_what_the_guide_shows_is_found(query: str) -> None:
    """Raw and escaped, in any case, in every operator; a `+` that came as a space."""
    assert shown([FLOW], query) == ["a"]


@pytest.mark.parametrize(
    "query",
    [
        "property=state==disabled",
        "property=state==enabled&property=id==b",
        "property=createdAt>5",
        "property=createdAt<5",
        "property=sourceConnectionIds==s1",
        "property=sourceConnectionIds[]==s3",
        "property=name[]==Orders",
        "property=scheduleParams==15",
        "property=scheduleParams.interval==x",
        "property=scheduleParams.backfill>=0",
        "property=description==x",
        "property=state.x==enabled",
    ],
)
def test_a_value_of_another_form_does_not_match(query: str) -> None:
    """An array needs its `[]`, and a missing field equals no value."""
    assert shown([FLOW], query) == []


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("limit=5&count=true", "1401-400", "The limit and count parameters cannot be given"),
        ("orderby=--name", "1432-400", "Sort order specified is not correct, prepend + for asc"),
        ("orderby=name%20desc", "1432-400", "Sort order specified is not correct"),
        ("orderby=", "1432-400", "Sort order specified is not correct"),
        ("orderby=name,", "1432-400", "Sort order specified is not correct"),
        ("orderby=%23id", "1433-400", "Incorrect field= #id passed in orderBy, example are +name"),
        ("orderby=colour", "1433-400", "Incorrect field= colour passed in orderBy"),
        ("orderby=sourceConnectionIds[]", "1433-400", "Incorrect field= sourceConnectionIds[] "),
        ("property=name~x", "1440-400", "Operator '~' not implemented."),
        ("property=name!=x", "1440-400", "Operator '!=' not implemented."),
        ("property=createdAt<=1,2", "1443-400", "Operator '<=' is not allowed for multiple"),
        ("property=id>=5", "1448-400", "Operator >= not supported for field id."),
        ("property=connections==x", "1449-400", "Invalid field connections in filter params."),
        ("property=a..b==x", "1449-400", "Invalid field a..b in filter params."),
        ("property=createdAt!>5", "1450-400", "Invalid operator !> in filter params."),
        ("property=state=enabled", "1450-400", "Invalid operator = in filter params."),
        ("testParam=1", "1451-400", "Invalid params testParam provided in query params."),
        (
            "property=createdAt==1676643256,1676643210",
            "1452-400",
            "Invalid value 1676643256,1676643210 for field createdAt.",
        ),
        ("property=createdAt>now", "1452-400", "Invalid value now for field createdAt."),
        ("property=createdAt>1e999", "1452-400", "Invalid value 1e999 for field createdAt."),
        ("property=createdAt==", "1453-400", "Invalid query value createdAt== provided in query"),
        ("property=", "1453-400", "Invalid query value  provided in query param."),
        ("property=name", "1453-400", "Invalid query value name provided in query param."),
        ("property=name==a,,b", "1453-400", "Invalid query value name==a,,b provided in"),
        ("limit=0", "1452-400", "Invalid value 0 for field limit. It is a whole number from 1 to"),
        ("limit=1001", "1452-400", "Invalid value 1001 for field limit."),
        ("limit=ten", "1452-400", "Invalid value ten for field limit."),
        ("count=maybe", "1452-400", "Invalid value maybe for field count. It is true or false."),
        ("continuationToken=abc", "1452-400", "Invalid value abc for field continuationToken."),
        ("&".join(["property=id==a"] * 51), "1400-400", "There are more than 50 terms in proper"),
        ("orderby=" + ",".join(["id"] * 51), "1400-400", "There are more than 50 terms in orderby"),
    ],
)
def test_every_mistake_has_its_code_and_sentence(query: str, code: str, said: str) -> None:
    """Every mistake has the code and sentence of Flow Service's error catalogue."""
    with pytest.raises(Problem) as caught:
        page([FLOW], query)
    assert (caught.value.code, caught.value.status) == (code, 400)
    assert caught.value.detail.startswith(said)


@pytest.mark.parametrize("fields", [(), tuple(runs.COLUMNS)])
@given(st.data())
@QUICK
def test_what_the_openapi_document_allows_is_accepted(fields: Any, data: st.DataObject) -> None:
    """Every filter and order that the OpenAPI patterns allow is accepted."""
    schemas = {each["name"]: each["schema"] for each in listing.documented(fields)["parameters"]}
    assert list(schemas) == list(listing.PARAMETERS)
    for name, schema in (
        ("property", schemas["property"]["items"]),
        ("orderby", schemas["orderby"]),
    ):
        text = data.draw(st.from_regex(schema["pattern"], fullmatch=True))
        if fields:
            wanted_of(f"{name}={quote(text)}")
        else:
            page([], f"{name}={quote(text)}")


def test_a_count_is_of_all_pages_and_alone() -> None:
    """No items, no links."""
    items = [{"id": str(number), "state": "enabled"} for number in range(95)]
    assert page(items, "count=true") == {"count": 95}
    assert page(items, "count=True&property=state==disabled") == {"count": 0}
    assert len(page(items, "")["items"]) == listing.DEFAULT_LIMIT


def test_a_link_leads_to_the_next_page_and_the_last_has_none() -> None:
    """The link to the next page is relative, and its token has filters, order and limit."""
    items = [{"id": str(number), "createdAt": 1, "name": "Ä=&?"} for number in range(3)]
    first = page(items, "limit=2&orderby=-name&property=name==%C3%A4%3D%26%3F")
    href = first["_links"]["next"]["href"]
    path, _, token = href.partition("?continuationToken=")
    assert path == "/things"
    assert quote(token, safe="") == token
    assert page(items, urlsplit(href).query) == {"items": [items[0]], "_links": {}}
    assert page([], "") == {"items": [], "_links": {}}


def test_parameters_beside_a_token() -> None:
    """Beside a token, only the same filters and order are accepted; the limit may change."""
    items = [{"id": str(number), "name": "x"} for number in range(9)]
    asked = "property=name==x&orderby=id"
    token = page(items, f"{asked}&limit=2")["_links"]["next"]["href"].partition("?")[2]
    assert shown(items, token) == ["2", "3"]
    assert shown(items, f"{token}&{asked}&limit=3") == ["2", "3", "4"]
    assert page(items, f"{token}&count=true") == {"count": 9}
    for other in ("property=name==y", "orderby=-id", "property=name==x"):
        with pytest.raises(Problem, match="It is that of a list with other filters or order"):
            page(items, f"{token}&{other}")


def test_fields_are_gathered_for_the_page_alone() -> None:
    """Gathered fields are added to the items of the page only, unless the list is filtered or
    ordered by them.
    """
    items = [{"id": str(number), "createdAt": number} for number in range(9)]
    seen: list[str] = []

    def whole(item: Json) -> Json:
        seen.append(item["id"])
        return item | {"lastRunDetails": {"startedAtUTC": -item["createdAt"]}}

    for query, gathered in (
        ("limit=2", 2),
        ("property=createdAt<3", 3),
        ("count=true", 0),
        ("limit=2&orderby=lastRunDetails.startedAtUTC", 9),
        ("property=lastRunDetails.startedAtUTC>-2", 9),
        ("count=true&property=lastRunDetails.startedAtUTC>-2", 9),
    ):
        seen.clear()
        request = Request({"type": "http", "query_string": query.encode(), "headers": []})
        found = listing.page(request, "things", items, whole)
        assert len(seen) == gathered, query
        assert found == page([whole(each) for each in items], query)


TOKENS: list[Any] = [
    None, 5, [], [{}, 2], {}, [{}, 2, []], [{}, 2, [[3, "a"]]], [{}, 2, [[3, "a"]] * 3],
    [{}, 2, [[2, "a"], [3, "a"]]], [{}, 2, [[3, 5], [3, "a"]]], [{}, 2, [[5, 5], [3, "a"]]],
    [{}, 2, [[-1, 5], [3, "a"]]], [{}, 2, [[2, 1 << 63], [3, "a"]]], [{}, 2, [[], [3, "a"]]],
    [{}, 0, [[2, 5], [3, "a"]]], [{}, "x", [[2, 5], [3, "a"]]], [[], 2, [[2, 5], [3, "a"]]],
    [{"limit": ["5"]}, 2, [[2, 5], [3, "a"]]], [{"property": [5]}, 2, [[2, 5], [3, "a"]]],
    [{"property": 5}, 2, [[2, 5], [3, "a"]]], [{}, 2, [[2, float("nan")], [3, "a"]]],
    [{}, 2, [[3, "\ud800"], [3, "a"]]], [{}, 2, [[2, 5, 5], [3, "a"]]],
]  # fmt: skip


@pytest.mark.parametrize("content", TOKENS)
def test_a_forged_token_is_refused(content: Any) -> None:
    """A forged token is refused as invalid by lists of resources and of runs."""
    token = urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    with pytest.raises(Problem, match="for field continuationToken"):
        page([FLOW], f"continuationToken={token}")


def code_of(query: str) -> str:
    """Return the code of the mistake in a query; "" for a valid one."""
    try:
        page([FLOW], query)
    except Problem as problem:
        return problem.code
    return ""


@given(st.text() | st.binary().map(lambda made: urlsafe_b64encode(made).decode()))
@QUICK
def test_any_token_is_read_or_refused(token: str) -> None:
    """Any text as a token is read or refused, without another error."""
    assert code_of(f"continuationToken={quote(token, errors='replace')}") in ("", "1452-400")


@given(st.lists(st.sampled_from([*"abc=<>!~,.[]+- 1&%", "id", "createdAt", "=="])).map("".join))
@QUICK
def test_no_term_is_more_than_refused(text: str) -> None:
    """A filter or an order is read, or is a mistake with a code of the catalogue."""
    for name in ("property", "orderby"):
        assert code_of(f"{name}={quote(text)}")[:2] in ("", "14")


# The grammar beside a plain model ----------------------------------------------------------

NAMES = ["name", "state", "createdAt", "params.a", "params.b.c", "labels[]", "transformations[].x"]
WORDS = st.sampled_from(["a", "B", "ab", "5", "true", "ä"])
SCALARS = st.none() | st.booleans() | st.integers(-3, 9) | st.floats(-3, 9, width=16) | WORDS
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "name": WORDS,
        "state": SCALARS,
        "createdAt": st.integers(0, 5),
        "params": st.none() | st.fixed_dictionaries(
            {}, optional={"a": SCALARS, "b": st.fixed_dictionaries({}, optional={"c": SCALARS})}
        ),
        "labels": st.lists(SCALARS, max_size=3) | SCALARS,
        "transformations": st.lists(st.fixed_dictionaries({}, optional={"x": SCALARS}), max_size=3),
    },
)  # fmt: skip
THINGS = st.lists(ITEMS, max_size=12).map(
    lambda made: [{"id": f"i{number:02}", **item} for number, item in enumerate(made)]
)


@dataclass
class Term:
    """A filter and its meaning."""

    name: str
    operator: str
    values: list[str]

    def text(self) -> str:
        return f"property={self.name}{self.operator}{quote(','.join(self.values))}"

    def holds(self, item: Json) -> bool:
        found: list[Any] = [item]
        for step in self.name.split("."):
            found = [each[step.rstrip("[]")] for each in found
                     if isinstance(each, dict) and step.rstrip("[]") in each]  # fmt: skip
            if step.endswith("[]"):
                found = [one for each in found if isinstance(each, list) for one in each]
        return any(self.fits(value) for value in found)

    def fits(self, value: Any) -> bool:
        if self.operator == "==":
            return any(self.equals(value, wanted) for wanted in self.values)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return False
        try:
            is_less, is_more = (float(value) < float(self.values[0]),
                                float(value) > float(self.values[0]))  # fmt: skip
        except ValueError:
            return False
        return {"<": is_less, ">": is_more, "<=": not is_more, ">=": not is_less}[self.operator]

    @staticmethod
    def equals(value: Any, wanted: str) -> bool:
        if isinstance(value, bool):
            return json.dumps(value) == wanted.lower()
        if isinstance(value, str):
            return value.lower() == wanted.lower()
        try:
            return isinstance(value, int | float) and value == float(wanted)
        except ValueError:
            return False


def terms(names: Sequence[str], numbers: Sequence[str], values: Any) -> st.SearchStrategy[Term]:
    """Valid filters."""
    return st.one_of(
        st.builds(
            Term, st.sampled_from([name for name in names if name not in numbers]),
            st.just("=="), st.lists(values, min_size=1, max_size=3),
        ),
        st.builds(
            Term, st.sampled_from(numbers), st.sampled_from(["==", "<", ">", "<=", ">="]),
            st.integers(-1, 9).map(lambda number: [str(number)]),
        ),
    )  # fmt: skip


SOME = terms(NAMES, ["createdAt"], st.one_of(WORDS, st.sampled_from(["A", "b", "TRUE", "5.0"])))
MORE = st.builds(
    Term, st.sampled_from(["params.a", "params.b.c", "labels[]", "transformations[].x"]),
    st.sampled_from(["<", ">", "<=", ">="]), st.just(["2.5"]),
)  # fmt: skip


@given(THINGS, st.lists(SOME | MORE, max_size=3))
@settings(max_examples=200, deadline=None)
def test_filters_mean_what_a_plain_model_says(items: list[Json], wanted: list[Term]) -> None:
    """Filters select what a plain model selects, for any items."""
    query = "&".join([*(term.text() for term in wanted), "limit=1000", "orderby=id"])
    expected = [item["id"] for item in items if all(term.holds(item) for term in wanted)]
    assert shown(items, query) == expected


ORDERS = st.lists(
    st.tuples(st.sampled_from(["name", "state", "createdAt", "params.a", "labels", "id"]),
              st.sampled_from(["", "-", "+"])), min_size=1, max_size=3,
).map(lambda made: ",".join(sign + name for name, sign in made))  # fmt: skip


@given(THINGS, ORDERS | st.none(), st.integers(1, 5), st.data())
@settings(max_examples=100, deadline=None)
def test_pages_have_every_item_once(
    items: list[Json], order: str | None, limit: int, data: st.DataObject
) -> None:
    """In any order, of any size, and while items come and go between two pages."""
    query, visited, added = f"limit={limit}", list[str](), list[Json]()
    query += f"&orderby={quote(order)}" if order else ""
    while query:
        answer = page([*items, *added], query)
        assert len(answer["items"]) <= limit
        visited += [item["id"] for item in answer["items"]]
        query = urlsplit(answer["_links"].get("next", {"href": ""})["href"]).query
        if data.draw(st.booleans()):
            added.append(data.draw(ITEMS) | {"id": f"n{len(added)}"})
    assert len(visited) == len(set(visited))
    assert {item["id"] for item in items} <= set(visited)


@given(THINGS, ORDERS, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_pages_together_are_in_the_order_of_the_list(
    items: list[Json], order: str, limit: int
) -> None:
    """All pages together are the list in its order."""
    whole = shown(items, f"limit=1000&orderby={quote(order)}")
    query, visited = f"limit={limit}&orderby={quote(order)}", list[str]()
    while query:
        answer = page(items, query)
        visited += [item["id"] for item in answer["items"]]
        query = urlsplit(answer["_links"].get("next", {"href": ""})["href"]).query
    assert visited == whole


def test_order_is_by_value_without_case_and_what_is_missing_comes_first() -> None:
    """A to Z, and Z to A with a minus; equal ones by the next field, at last by their ids."""
    made = {"a": "pear", "b": "Apple", "c": None, "d": "apple", "e": 5, "f": True}
    items = [{"id": id_, "name": name} for id_, name in made.items()]
    assert shown(items, "orderby=name") == ["c", "f", "e", "b", "d", "a"]
    assert shown(items, "orderby=-name") == ["a", "d", "b", "e", "f", "c"]
    assert shown(items, "orderby=name,-id") == ["c", "f", "e", "d", "b", "a"]


# Runs: the same, by SQLite -----------------------------------------------------------------

MOMENTS = st.integers(0, 4)
RUNS = st.lists(
    st.tuples(st.sampled_from(["one", "two"]), st.sampled_from([SUCCESS, FAILED, IN_PROGRESS]),
              MOMENTS, st.none() | MOMENTS, st.none() | MOMENTS, MOMENTS), max_size=14,
)  # fmt: skip
CONNECTION = Connection("https://h", "reader", Secret("s3cret"), 1)
WINDOW = Window(date(2024, 3, 1), date(2024, 3, 2))
TIMES = [name for name in runs.COLUMNS if is_number(name)]
ALIASES = {"state": "status", "status": "status"}
FLOW_IDS = [flow_id("one"), flow_id("two")]
VALUES = st.sampled_from(["Success", "failed", "INPROGRESS", *FLOW_IDS, FLOW_IDS[0].upper()])
RUN_TERMS = terms(list(runs.COLUMNS), TIMES, VALUES | st.just("R01"))
RUN_ORDERS = st.lists(
    st.tuples(st.sampled_from(list(runs.COLUMNS)), st.sampled_from(["", "-"])), max_size=3
).map(lambda made: ",".join(sign + name for name, sign in made))


def save(catalog: Catalog, number: int, made: tuple[Any, ...]) -> Json:
    """Store a run; return its item of the payload."""
    flow, status, created, begun, ended, updated = made
    saved = record(
        f"r{number:02}",
        status,
        created,
        flow=flow,
        window=WINDOW,
        batch_id=f"B{number}",
        updated_at=updated,
        copy_started=begun,
        promotion_completed=ended,
    )
    catalog.save(saved)
    return payload(saved)


def wanted_of(query: str) -> listing.Listing:
    return listing.parse(QueryParams(query).multi_items(), runs.COLUMNS.__contains__)


def walk(catalog: Catalog, query: str) -> tuple[list[str], str]:
    """Return the ids of a page of runs, and the query of the next page."""
    wanted = wanted_of(query)
    found = runs.find(catalog, wanted)
    last = found[wanted.limit - 1].place if len(found) > wanted.limit else None
    href = listing.links("runs", wanted, last).get("next", {"href": ""})["href"]
    ids = [each.record.id for each in found[: wanted.limit]]
    return ids, urlsplit(href).query


@given(RUNS, st.lists(RUN_TERMS, max_size=3), RUN_ORDERS, st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_sqlite_finds_what_the_predicate_finds(
    made: list[Any], wanted: list[Term], order: str, limit: int
) -> None:
    """The same runs in the same order, page by page, and as many."""
    with TemporaryDirectory() as home, Catalog(Path(home)) as catalog:
        items = [save(catalog, number, each) for number, each in enumerate(made)]
        query = "&".join(
            [*(term.text() for term in wanted), *([f"orderby={order}"] if order else [])]
        )
        asked = wanted_of(query)
        seen = [item | dict.fromkeys(ALIASES, item["metrics"]["statusSummary"]["status"])
                for item in items]  # fmt: skip
        found = [item for item in seen if matches(item, asked.conditions)]
        assert found == [item for item in seen if all(term.holds(item) for term in wanted)]
        found.sort(
            key=cmp_to_key(
                lambda a, b: compare_keys(
                    sort_key(a, asked.order), sort_key(b, asked.order), asked.order
                )
            )
        )
        visited, following = walk(catalog, f"{query}&limit={limit}".lstrip("&"))
        while following:
            more, following = walk(catalog, following)
            assert len(more) <= limit
            visited += more
        assert visited == [item["id"] for item in found]
        assert runs.count(catalog, asked) == len(found)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("metrics.durationSummary.startedAtUTC<5", ["r02"]),
        ("metrics.durationSummary.startedAtUTC<=5", ["r02"]),
        ("metrics.durationSummary.startedAtUTC==-1", []),
        ("metrics.durationSummary.completedAtUTC>-9", ["r02"]),
        ("id==R01,r02", ["r02", "r01"]),
        ("state==INPROGRESS", ["r01"]),
    ],
)
def test_a_moment_that_has_not_come_is_no_number(
    tmp_path: Path, query: str, found: list[str]
) -> None:
    """A missing time matches no number, and ids are compared without case."""
    with Catalog(tmp_path) as catalog:
        save(catalog, 1, ("one", IN_PROGRESS, 1, None, None, 4))
        save(catalog, 2, ("one", SUCCESS, 2, 3, 4, 4))
        assert walk(catalog, f"property={query}")[0] == found


@given(RUNS, st.lists(RUNS, max_size=4), RUN_ORDERS, st.integers(1, 5))
@QUICK
def test_pages_of_runs_have_every_run_once_while_runs_come(
    made: list[Any], later: list[list[Any]], order: str, limit: int
) -> None:
    """Runs of the first page's time are listed once, later ones at most once."""
    with TemporaryDirectory() as home, Catalog(Path(home)) as catalog:
        before = {save(catalog, number, each)["id"] for number, each in enumerate(made)}
        query, visited, number = f"limit={limit}&orderby={order or '-createdAt'}", [], len(made)
        while query:
            ids, query = walk(catalog, query)
            visited += ids
            for each in later.pop() if later else []:
                save(catalog, number, each)
                number += 1
        assert len(visited) == len(set(visited))
        assert before <= set(visited)


@pytest.mark.parametrize("content", TOKENS)
def test_a_forged_token_of_runs_is_refused(content: Any) -> None:
    """A forged token of runs is refused before a query of SQLite."""
    token = urlsafe_b64encode(json.dumps(content).encode()).decode()
    with pytest.raises(Problem, match="for field continuationToken"):
        wanted_of(f"continuationToken={token}")


def test_any_order_that_a_token_may_have_is_no_failure_of_sqlite(tmp_path: Path) -> None:
    """Any sort key of the right form is a valid query of SQLite."""
    with Catalog(tmp_path) as catalog:
        save(catalog, 1, ("one", SUCCESS, 1, 2, 3, 4))
        for rank in ([0], [1, True], [2, -(1 << 63) + 1], [2, 1e300], [3, "x\x00"], [4, "{}"]):
            said = [{"orderby": ["status"]}, 5, [rank, rank]]
            token = urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
            assert walk(catalog, f"continuationToken={token}")[0] in ([], ["r01"])


def test_what_runs_are_not_listed_by_is_told_with_what_they_are(tmp_path: Path) -> None:
    """The whole closed list, in the sentence."""
    for query, code in (("property=etag==x", "1449-400"), ("orderby=etag", "1433-400")):
        with pytest.raises(Problem) as caught:
            listing.parse(QueryParams(query).multi_items(), runs.COLUMNS.__contains__, runs.FIELDS)
        assert caught.value.code == code
        assert all(name in caught.value.detail for name in runs.COLUMNS)
