"""Regular expressions of a schema: their meaning, their refusal, and linear time for any text."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine.errors import InputError
from engine.sync.preview import preview
from engine.sync.pull import Rules
from engine.transform import jsonschema_validator
from engine.transform.patterns import LONGEST, compiled, is_regex
from engine.transform.schema import Schema
from tests.transform.test_validate import checked

Json = dict[str, Any]
EVIL = "^([A-Za-z0-9]+)*$"
LONG = "a" * 100_000 + "!"


def named(**limits: Any) -> Json:
    """A schema with one string column that has these keywords."""
    return {"type": "object", "properties": {"a": {"type": "string", **limits}}}


@pytest.mark.parametrize(
    ("pattern", "found", "missed"),
    [
        ("b", ["abc"], ["ac"]),  # a search, which need not begin at the beginning
        ("^a$", ["a"], ["a\n", "ba"]),
        (r"b\Z", ["ab"], ["ab\n"]),
        (r"^\d$", ["7"], ["٣"]),
        (r"^\w$", ["_"], ["é", "-"]),
        (r"^\s\S$", ["\xa0é", "\ufeffx", "\u2028x"], ["xx", "\x85x"]),
        (r"^[\s]$", ["\u3000"], ["x"]),
        (r"^[\Sx]$", ["é", "x"], ["\u3000"]),
        (r"^[^\s@]+@[^\s@]+$", ["a@é"], ["a@b c"]),
        (r"^\u00e9\x41\cA\0$", ["éA\x01\0"], ["e"]),
        (r"^[\u00e0-\u00ff]$", ["é"], ["e"]),
        (r"^\ud83d\ude00$", ["😀"], [""]),
        (r"^\u{1F600}$", ["😀"], ["u"]),
        ("^.$", ["é", "😀"], ["", "\n"]),
        ("^.{1,1000}$", ["é" * 1000], ["é" * 1001]),
        ("^(?<year>[0-9]{4})(?P<more>x?)$", ["2024"], ["24"]),
        (r"^\p{L}+$", ["größe"], ["a1"]),
        ("^[[:alpha:]]$", ["a]", ":]"], ["a", "b"]),
        (r"^[\b\]]$", ["\b", "]"], ["b"]),
        ("^[]a]$", ["]", "a"], ["b"]),
        ("^a{,2}$", ["", "aa"], ["aaa"]),
        ("^a{,b$", ["a{,b"], ["a"]),
        (r"^\/\-\é$", ["/-é"], ["/"]),
        ("(?i)^größe$", ["GRÖSSE".replace("SS", "ß")], ["x"]),
    ],
)
def test_a_pattern_means_what_json_schema_means(
    pattern: str, found: list[str], missed: list[str]
) -> None:
    """ECMA-262's reading, in the column check, in the referee and in the names of properties."""
    checker = jsonschema_validator.validator({"pattern": pattern})
    keys = jsonschema_validator.validator({"patternProperties": {pattern: False}})
    for text in found + missed:
        assert compiled(pattern).found_in(text) == (text in found)
        assert checker.is_valid(text) == (text in found)
        assert keys.is_valid({text: 1}) == (text not in found)
    batch = checked(named(pattern=pattern), *({"a": text} for text in found + missed))
    assert len(batch.rejects) == len(missed)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("^(?!free$)", "looks around"),
        ("(?<=a)b", "looks around"),
        (r"(a)\1", "refers back"),
        (r"(?P<a>x)(?P=a)", "refers back"),
        (r"(?<a>x)\k<a>", "refers back"),
        ("(a{1000}){1000}", "repetition"),
        (r"^[^\W]{1,900}\p{L}{900}$", "too large"),
        ("a" * (LONGEST + 1), f"more than {LONGEST:,} characters"),
        (r"\q", "unknown escape"),
        ("a\\", "unknown escape"),
        (r"\ud83d", "no character"),
        ("\ud83d", "surrogate"),
        (r"\u12", "hexadecimal"),
        ("(" * 2000, "missing )"),
    ],
)
@pytest.mark.parametrize("place", ["pattern", "patternProperties"])
def test_a_pattern_that_cannot_run_in_linear_time_is_refused(
    pattern: str, why: str, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The error has the pattern, its place and what to do; RE2 logs nothing."""
    value: Any = pattern if place == "pattern" else {pattern: True}
    with pytest.raises(InputError) as error:
        Schema.parse("test", {**named(), "not": {"maxProperties": 0, place: value}})
    [line] = str(error.value).splitlines()[1:]
    assert line.strip().startswith(f"#/not/{place}")
    assert why in line
    assert "'not' around another pattern" in line
    assert len(line) < 6000
    assert capfd.readouterr() == ("", "")


def test_too_many_patterns_are_refused() -> None:
    """A schema has a bounded number of different patterns, since each takes memory."""
    names = {f"^a{n}$": True for n in range(600)}
    with pytest.raises(InputError, match="different regexes"):
        Schema.parse("test", {**named(), "patternProperties": names})


@pytest.mark.parametrize(
    "document",
    [
        named(pattern=EVIL),
        named(pattern="(x+x+)+y|" + EVIL),
        named(anyOf=[{"pattern": EVIL}]),
        named(**{"not": {"not": {"pattern": EVIL}}}),
        {**named(), "propertyNames": {"pattern": "^a$"}, "allOf": [named(pattern=EVIL)]},
    ],
)
def test_no_event_stalls_a_pattern(document: Json) -> None:
    """A text on which a backtracking engine never ends is judged at once, and rejected."""
    assert len(checked(document, {"a": LONG}, {"a": "a"}).rejects) == 1


def test_no_event_stalls_the_preview() -> None:
    """The preview holds a record against the same patterns as a run."""
    mapping = {"mappings": [{"source": "properties.a", "destination": "a"}]}
    record = {"event": "e", "properties": {"a": LONG, "time": 1704070800, "$insert_id": "1"}}
    rules = Rules(schema=("s", named(pattern=EVIL)), mapping=("m", mapping))
    [row] = preview(rules, [json.dumps(record).encode()])
    assert row["data"] is None
    assert "does not match" in row["errors"][-1]["exception"]


def test_a_text_too_long_for_a_large_pattern_is_rejected() -> None:
    """The product of a text's and a program's length is bounded, and the message says so."""
    batch = checked(named(pattern="(a|b)*a(a|b){400}c"), {"a": "ab" * 200_000})
    assert "is too long to be matched with" in batch.rejects[0].message


PLACES: list[Json] = [
    {"patternProperties": {EVIL: {"type": "integer"}}},
    {"additionalProperties": False, "patternProperties": {EVIL: True}},
    {"unevaluatedProperties": False, "patternProperties": {EVIL: True}},
    {"unevaluatedProperties": False, "allOf": [{"patternProperties": {EVIL: True}}]},
    {"propertyNames": {"pattern": EVIL}},
    {"$schema": Draft202012Validator.META_SCHEMA["$id"], "propertyNames": {"$ref": "#/$defs/p"}}
    | {"$defs": {"p": {"$ref": "#", "pattern": EVIL}}},
]


@pytest.mark.parametrize("schema", PLACES)
def test_no_name_of_a_property_stalls_the_referee(schema: Json) -> None:
    """Property names are matched by RE2, too."""
    judge = jsonschema_validator.validator(schema)
    assert judge.is_valid({"abc": 1})
    assert not list(judge.iter_errors({}))
    list(judge.iter_errors({LONG: 1}))


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("^a$", True),
        ("(?!a)(b)\\1(?P<n>c)(?P=n)", True),
        ("(", False),
        ("(" * 100_000, False),
        ("[", False),
        ("(?i)[\u0100-\uffff]" * 400, True),
    ],
)
def test_a_text_is_a_regex_or_none_in_linear_time(text: str, good: bool) -> None:
    """`format: regex` compiles the text of an event: that too is bounded."""
    assert is_regex(text) is good
    assert jsonschema_validator.validator({"format": "regex"}).is_valid(text) is good


def test_a_format_is_held_against_texts_of_bounded_length() -> None:
    """The format of a text is checked up to a length; a longer text is invalid."""
    for name in jsonschema_validator.format_checker().checkers:
        judge = jsonschema_validator.validator({"format": name})
        assert not judge.is_valid("1@" * 10_000_000)
        assert judge.is_valid(1)
    assert jsonschema_validator.validator({"format": "unheard-of"}).is_valid(LONG)
