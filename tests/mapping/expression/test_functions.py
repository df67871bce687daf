"""What each function and operator gives: Data Prep's documented cases, and the edges of each rule.

data_prep_functions.json holds Adobe's examples, of AdobeDocs/experience-platform.en,
help/data-prep/functions.md, and of Apache JEXL's reference: {expression, input, expected, note}.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.mapping.expression.evaluator import Expression, Failed, Frame, as_json
from engine.mapping.expression.functions import FUNCTIONS
from engine.mapping.expression.nodes import ExpressionError

DOCUMENTED = json.loads(
    (Path(__file__).parent / "data_prep_functions.json").read_text(encoding="utf-8")
)
RUN_BEGAN = 1_704_067_200_000  # 2024-01-01T00:00:00Z


def value(expression: str, record: dict[str, Any]) -> Any:
    """What an expression gives for a record, as JSON has it."""
    frame = Frame([record], ["Sign up"], [b"{}"], now=RUN_BEGAN)
    [found] = Expression(expression, any_root=True).column(frame)
    return as_json(found)


@pytest.mark.parametrize("case", DOCUMENTED, ids=[case["expression"] for case in DOCUMENTED])
def test_documented_cases(case: dict[str, Any]) -> None:
    """Adobe's examples give what Adobe documents."""
    assert value(case["expression"], case["input"]) == case["expected"]


VALUES: list[tuple[str, dict[str, Any], Any]] = [
    ('concat("a", null, 1, true, 20.5, 1e16)', {}, "a1true20.51e+16"),
    ('explode("a,,b,", ",")', {}, ["a", "", "b", ""]),
    ('explode("a b")', {}, ["a b"]),
    ('explode("a|b", "\\|")', {}, ["a", "b"]),
    ('split("a;;b ; c", "; ")', {}, ["a", "b", "c"]),
    ('split("a\\\\b", "\\\\")', {}, ["a", "b"]),
    ('split("abc","")', {}, ["abc"]),
    ('join("-", [1, null, true])', {}, "1--true"),
    ('join("-", x)', {"x": 5}, "5"),
    ('instr("aaa","aa",0,2)', {}, 1),
    ('instr("abc","z")', {}, -1),
    ('replacestr("aXbX","X","yy")', {}, "ayybyy"),
    ('replacestr("abc","","z")', {}, "abc"),
    ('replacestr("abc",null,"z")', {}, "abc"),
    ('substr("abc", 1, 10)', {}, "bc"),
    ('substr("abc", 5, 1)', {}, ""),
    ('left("abc",0)', {}, ""),
    ('left("abc",-3)', {}, ""),
    ('right("abc",9)', {}, "abc"),
    ('lpad("7",3,"0")', {}, "007"),
    ('lpad("7",3,null)', {}, "  7"),
    ('lpad("7777",3,"0")', {}, "7777"),
    ('lpad(x,3,"0")', {}, None),
    ('upper("straße")', {}, "STRASSE"),
    ('trim("\xa0 a \u2003")', {}, "a"),
    ('x.equals("a")', {}, None),
    ('"5".equals(5)', {}, False),
    ('x.equals("5")', {"x": 5}, False),
    ('x.equalsIgnoreCase("A")', {}, None),
    ('"a".equalsIgnoreCase(null)', {}, False),
    ('extract_regex("abc","z")', {}, []),
    ('extract_regex("abc","(z)?b")', {}, ["b", None]),
    ('matches_regex("abcd","abc")', {}, False),
    ('md5("my text")', {}, "d3b96ce8c9fb4e9bd0198d03ba6852c7"),
    ('hash("md5","my text")', {}, "d3b96ce8c9fb4e9bd0198d03ba6852c7"),
    ('crc32("my text")', {}, "8df92e80"),
    ('get_url_protocol("HTTPS://A.b/c")', {}, "https"),
    ('get_url_protocol("nothing")', {}, None),
    ('get_url_host("https://user:pw@Host.Com:81/x")', {}, "Host.Com"),
    ('get_url_port("sftp://a.b")', {}, 22),
    ('get_url_port("foo://a.b:8042")', {}, 8042),
    ('get_url_port("foo://a.b")', {}, None),
    ('get_url_path("https://a.b/c/d.csv", false)', {}, "d.csv"),
    (
        'get_url_query_str("foo://example.com:8042/over/there?name=ferret#nose", "retain")',
        {},
        {"name": "ferret#nose"},
    ),
    (
        'get_url_query_str("foo://example.com:8042/over/there?name=ferret#nose", "append")',
        {},
        {"name": "ferret", "_anchor_": "nose"},
    ),
    ('get_url_query_str("foo://e.com/?a=1&a=2&b", "remove")', {}, {"a": "2", "b": ""}),
    ('get_url_encoded("a b~*|")', {}, "a%20b%7E%2A%7C"),
    ('get_url_decoded("a+b%20c%zz%2B")', {}, "a+b c%zz+"),
    ("now()", {}, "2024-01-01T00:00:00Z"),
    ("timestamp()", {}, 1704067200000),
    ('date("2019-10-23")', {}, "2019-10-23T00:00:00Z"),
    ('date("12112020")', {}, "2020-12-11T00:00:00Z"),
    ('date(null,"yyyy","2020-01-01")', {}, "2020-01-01T00:00:00Z"),
    ('date("", "yyyy", "2020-01-01")', {}, "2020-01-01T00:00:00Z"),
    ('date("2019-10-23T11:24:35.123456789+02:00")', {}, "2019-10-23T09:24:35.123Z"),
    ('date("10/23/2019 01:02:03 PM")', {}, "2019-10-23T13:02:03Z"),
    ('date("23-Oct-2019")', {}, "2019-10-23T00:00:00Z"),
    ('date("2019-10-23 11:24:35 PST","yyyy-MM-dd HH:mm:ss z")', {}, "2019-10-23T19:24:35Z"),
    (
        'date("2019-10-23 11:24:35 America/Los_Angeles","yyyy-MM-dd HH:mm:ss VV")',
        {},
        "2019-10-23T18:24:35Z",
    ),
    ('format(1571829875123,"yyyy-MM-dd HH:mm:ss.SSS")', {}, "2019-10-23 11:24:35.123"),
    ('format("2019-10-23T11:24:35Z","EEE, d MMM yyyy hh:mm a")', {}, "Wed, 23 Oct 2019 11:24 AM"),
    (
        'format("2019-10-23T11:24:35-07:00","yyyy-MM-dd\'T\'HH:mm:ssXXX Z X")',
        {},
        "2019-10-23T11:24:35-07:00 -0700 -07",
    ),
    ('dformat(1571829875000, "EEEE QQQ D w u")', {}, "Wednesday Q4 296 43 3"),
    ('date_part("dw","2019-10-17")', {}, 4),
    ('date_part("w","2019-10-17")', {}, 42),
    ('date_part("hh12","2019-10-17T00:00:00Z")', {}, 12),
    ('set_date_part("m", 2, date("2016-01-31"))', {}, "2016-02-29T00:00:00Z"),
    ('set_date_part("m", 12, date("2016-11-09T11:44:44.797"))', {}, "2016-12-09T11:44:44.797Z"),
    (
        'make_date_time(2019, 10, 17, 11, 55, 12, 999, "America/Los_Angeles")',
        {},
        "2019-10-17T18:55:12Z",
    ),
    ('make_timestamp(2024, 3, 10, 2, 30, 0, 0, "America/Los_Angeles")', {}, "2024-03-10T10:30:00Z"),
    (
        'format(zone_date_to_zone("2019-10-17T11:55:12Z","Europe/Paris"),"HH:mm VV z O")',
        {},
        "13:55 Europe/Paris GMT+02:00 GMT+2",
    ),
    ('zone_date_to_utc("2019-10-17T11:55:12 PST")', {}, "2019-10-17T19:55:12Z"),
    ("is_empty([])", {}, True),
    ("is_empty(x)", {}, True),
    ("is_empty(0)", {}, False),
    ('to_object("a",1,"a",2,"b",null)', {}, {"a": 2, "b": None}),
    ('arrays_to_object("a",[1,2],"b",[3])', {}, [{"a": 1, "b": 3}, {"a": 2, "b": None}]),
    ('str_to_object("a: 1 , b:2:3, c, :4, a:9")', {}, {"a": "1", "b": "2:3"}),
    ('str_to_object("a=1;b=2","=",";").b', {}, "2"),
    ('get_keys({"a":1,"b":2})', {}, ["a", "b"]),
    ("contains_key(a.b)", {"a": {"b": None}}, True),
    ('contains_key("a.c")', {"a": {"b": None}}, False),
    ("is_set(a)", {}, False),
    ('map_get_values(m,"a")', {"m": {"a": 1}}, 1),
    ('map_get_values(m,["a","z","b"])', {"m": {"a": 1, "b": 2}}, [1, 2]),
    ('map_has_keys(m,["z","a"])', {"m": {"a": 1}}, True),
    ('map_has_keys(null,"a")', {}, False),
    ('add_to_map({"a":1},{"a":2,"b":3},null)', {}, {"a": 1, "b": 3}),
    ('object_to_map("a",1,"b",2)', {}, {"a": 1, "b": 2}),
    (
        "object_to_map(arr, type)",
        {"arr": [{"type": "x", "n": 1}, {"n": 2}]},
        {"x": {"type": "x", "n": 1}},
    ),
    ('array_to_map(arr,"type")', {}, None),
    ("coalesce(null,null)", {}, None),
    ("coalesce([null,2])", {}, 2),
    ("coalesce(1, 1/0)", {}, 1),
    ("first([1,2])", {}, 1),
    ("last(x)", {"x": []}, None),
    ("add_to_array(null,1)", {}, [1]),
    ("join_arrays(null,[1])", {}, [1]),
    ("to_array(false,1,null)", {}, [1]),
    ("to_array(true,1,null)", {}, [1, None]),
    ("size_of(null)", {}, 0),
    ('size_of("añ😀")', {}, 3),
    ("upsert_array_replace([1],0)", {}, [1]),
    ('array_to_string(",",[1,[2,[3]]])', {}, "1,2,3"),
    ("filterArray([1,null,3], x -> x > 1)", {}, [3]),
    ("transformArray(o, x -> x.a + 1)", {"o": [{"a": 1}, {}]}, [2, None]),
    ("transformArray([1,2], x -> transformArray([10,20], y -> x*y))", {}, [[10, 20], [20, 40]]),
    ("iif(null,1,2)", {}, 2),
    ('iif("false",1,2)', {}, 2),
    ("iif(true,1,1/0)", {}, 1),
    ('decode(3,1,"a",2,"b")', {}, None),
    ('decode("1",1,"a")', {}, "a"),
    ("max(1,2.5)", {}, 2.5),
    ("min([3,1])", {}, 1),
    ("max(null)", {}, None),
    ('to_integer(" 12 ")', {}, 12),
    ("to_integer(3.0)", {}, 3),
    ('to_bigint("9223372036854775808")', {}, 9223372036854775808),
    ("json_to_object(x)", {"x": {"a": 1}}, {"a": 1}),
    ('aa_get_event_value("scOpen,event1=4","scOpen")', {}, "1"),
    ('aa_get_event_value("scOpen","x")', {}, None),
    ('aa_get_product_evars(";p;1;2;;eVar1=a|eVar2=b,;q","eVar2")', {}, ["b", None]),
    ("null == null", {}, True),
    ("null == 0", {}, False),
    ('true == "yes"', {}, True),
    ('1 == "1.0"', {}, True),
    ('1 == "x"', {}, False),
    ("[1,2]==[1,2]", {}, True),
    ('1 === "1"', {}, False),
    ("1 === 1", {}, True),
    ("1 < null", {}, False),
    ('"10" < 9', {}, False),
    ('"a" < "b"', {}, True),
    ('"a" + 1 + 2', {}, "a12"),
    ('1 + "1"', {}, "11"),
    ("1 + null", {}, None),
    ("x - 1", {"x": "5"}, 4),
    ("7 / 2", {}, 3),
    ("-7 / 2", {}, -3),
    ("-7 % 2", {}, -1),
    ("7.0/2", {}, 3.5),
    ("1 << 65", {}, 2),
    ("-1 >>> 63", {}, 1),
    ("-8 >> 1", {}, -4),
    ("1 << 63", {}, -9223372036854775808),
    ("empty x", {}, True),
    ("size(x)", {"x": {"a": 1}}, 1),
    ("!x", {}, True),
    ("-x", {"x": 5}, -5),
    ("~x", {"x": 5}, -6),
    ("x ?? y ?? 3", {"y": 2}, 2),
    ("x ?: 5", {"x": 0}, 5),
    ("true ? 1 : false ? 2 : 3", {}, 1),
    ("a.b.c", {"a": {"b": [{"c": 1}, {}]}}, [1, None]),
    ("a[0]", {"a": [5]}, 5),
    ("a[-1]", {"a": [5]}, None),
    ('a["b"]', {"a": {"b": 1}}, 1),
    ("a[*].b", {"a": [{"b": 1}]}, [1]),
    ("a[i]", {"a": [5, 6], "i": 1}, 6),
    ('a.get("b")', {"a": {"b": 1}}, 1),
    ("a.get(0)", {"a": [7]}, 7),
    ("${a b}.c", {"a b": {"c": 1}}, 1),
    ("${a\\.b}", {"a.b": 1}, 1),
    ("${a.b}", {"a": {"b": 1}}, 1),
    ("street\\.name", {"street.name": 2}, 2),
    ("date", {"date": 5}, 5),
    ("a.if", {"a": {"if": 1}}, 1),
    ('"abc" =~ "b"', {}, False),
    ('"a" =~ {"a":1}', {}, True),
    ('"abc" !^ "ab"', {}, False),
    ("'it\\'s'", {}, "it's"),
    ('"\\u00e9\\ud83d\\ude00"', {}, "é😀"),
    ('"a\\b"', {}, "a\\b"),
    ("0x1F + 1l", {}, 32),
    ("1.5e3f", {}, 1500.0),
    ("concat", {"concat": 1}, 1),
    ('sha1("é","ISO-8859-1")', {}, "1599e9fa41ec68c80230491902786bee889f5bcb"),
    ('explode("a.b", "\\\\.")', {}, ["a", "b"]),
    ("// c\n1 /* x */ + ## y\n 2", {}, 3),
    ('"a" && 0', {}, False),
    ('null || "x"', {}, True),
]


@pytest.mark.parametrize(("expression", "record", "expected"), VALUES)
def test_values(expression: str, record: dict[str, Any], expected: Any) -> None:
    """Each rule at its edges, the type of the value included."""
    found = value(expression, record)
    assert (found, type(found)) == (expected, type(expected))


FAILING: list[tuple[str, dict[str, Any]]] = [
    ('instr("abc","b",0,0)', {}),
    ('substr("abc",-1,1)', {}),
    ('date("x")', {}),
    ('set_date_part("m", 13, date("2016-01-31"))', {}),
    ("size_of(5)", {}),
    ("iif(false,1,1/0)", {}),
    ('min(null,2,"x")', {}),
    ('to_integer("1.5")', {}),
    ('to_integer("9223372036854775808")', {}),
    ('to_decimal("x")', {}),
    ('to_float("1e39")', {}),
    ('json_to_object("[1,")', {}),
    ('"a" < 1', {}),
    ("1 / 0", {}),
    ("1.0 / 0", {}),
    ("1e308*10", {}),
]


@pytest.mark.parametrize(("expression", "record"), FAILING)
def test_transform_errors(expression: str, record: dict[str, Any]) -> None:
    """What cannot be computed for a record is a failed value with a reason, no exception."""
    found = value(expression, record)
    assert isinstance(found, Failed)
    assert found.reason


REFUSED = [
    'sha256("a","bogus")',
    'get_url_query_str("foo://e.com/?a=1", "x")',
    'date_part("bogus","2019-10-17")',
    'to_object("a")',
    "first()",
    "x -> 1",
    'fpid_to_ecid("x")',
    '"x" - 1',
    "a.foo()",
    "if",
    "010",
    "a == b == c",
    "1,2",
]


@pytest.mark.parametrize("expression", REFUSED)
def test_refused(expression: str) -> None:
    """What is wrong for every record is refused, with its place."""
    with pytest.raises(ExpressionError, match=r"\(character [0-9]+\)"):
        Expression(expression, any_root=True)


def test_every_function_is_documented_and_its_example_compiles() -> None:
    """A description, a syntax, and an example that an editor can show."""
    for function in FUNCTIONS.values():
        assert function.description
        assert function.name in function.syntax
        if function.form != "refused":
            Expression(function.example, any_root=True)


def test_the_number_of_functions() -> None:
    """The 97 of the documents, `get` and one that is refused among them."""
    assert len({function.name for function in FUNCTIONS.values()}) == 98
