"""What a list is asked for: Flow Service's `property`, `orderby`, `limit`, `continuationToken` and
`count`, as its guide to sorting and filtering and its error catalogue have them.

A page begins after an item, not at a number, so that no page is wrong because rows were added.
No regular expression reads a client's text, and every text has a greatest length.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key, partial
from typing import Any

from fastapi import Request

from engine.control.api.problems import Problem, cut, invalid

Json = dict[str, Any]
Key = list[Any]  # an item's place in an order

DEFAULT_LIMIT = 20
MOST = 1000  # the specification's `maximum` for a search
MOST_TERMS = 50  # of one kind
MOST_TEXT = 2_000  # characters of all filters, and of all orders, of a list
MOST_TOKEN = 12_000  # characters of a token: it repeats filters and order, and names a place
MOST_PLACE = 1_600  # characters of a place in an order
NEWEST_FIRST = "-createdAt"
PARAMETERS = ("property", "orderby", "limit", "continuationToken", "count")

# What items of Flow Service have: one that no item of a list has now is still no mistake.
FIELDS = frozenset(
    {
        "id", "createdAt", "updatedAt", "createdBy", "updatedBy", "createdClient",
        "updatedClient", "sandboxId", "sandboxName", "imsOrgId", "name", "description",
        "connectionSpec", "state", "auth", "version", "etag", "baseConnectionId", "data",
        "params", "providerRefId", "providerId", "inheritedAttributes", "flowSpec",
        "sourceConnectionIds", "type", "labels", "targetConnectionIds", "scheduleParams",
        "transformations", "options", "runs", "lastOperation", "lastRunDetails"
    }
)  # fmt: skip
GATHERED = frozenset(
    {"providerRefId", "inheritedAttributes", "runs", "lastOperation", "lastRunDetails"}
)
NUMBERS = frozenset({"createdAt", "updatedAt"})  # and what ends in UTC
TEXTS = FIELDS - NUMBERS - {"version"} | {"flowId", "status", "metrics.statusSummary.status"}

_OPERATOR = frozenset("=<>!~")
_QUOTES = ('"', "'")
_KNOWN = ("==", "<", ">", "<=", ">=")
_RANKS: tuple[tuple[type, ...], ...] = ((type(None),), (bool,), (int, float), (str,), (str,))
_UNMADE = ("~", "!=", "=~", "!~")  # operators that are there elsewhere


@dataclass(frozen=True, slots=True)
class Condition:
    """One `property`: any of the `values` for `==`, one number for the other operators."""

    field: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list is asked for. `after` is the place of the last item of the page before."""

    conditions: tuple[Condition, ...]
    order: tuple[tuple[str, bool], ...]  # (field, whether descending), the first is the main one
    limit: int
    count: bool
    after: Key | None
    said: Json  # `property` and `orderby` as they came: a token repeats them


def page(
    request: Request,
    kind: str,
    items: list[Json],
    whole: Callable[[Json], Json] = lambda item: item,
) -> Json:
    """The answer to a list of `kind`, the last part of its path, of which `items` are all.

    `whole` adds to an item what is `GATHERED` from elsewhere: to those on the page, unless the list
    is filtered or ordered by it.
    """
    known = FIELDS.union(*items)
    wanted = parse(
        request.query_params.multi_items(),
        lambda field: _top(field) in known,
    )
    asked = [each.field for each in wanted.conditions] + [field for field, _ in wanted.order]
    if not GATHERED.isdisjoint(map(_top, asked)):
        items, whole = [whole(item) for item in items], lambda item: item
    found = [item for item in items if matches(item, wanted.conditions)]
    if wanted.count:
        return {"count": len(found)}
    in_order = cmp_to_key(partial(compare, order=wanted.order))
    places = [(place(item, wanted.order), item) for item in found]
    if wanted.after is not None:
        places = [each for each in places if in_order(each[0]) > in_order(wanted.after)]
    places.sort(key=lambda each: in_order(each[0]))
    shown = places[: wanted.limit]
    last = shown[-1][0] if len(places) > len(shown) else None
    return {"items": [whole(item) for _, item in shown], "_links": links(kind, wanted, last)}


def _top(field: str) -> str:
    """What an item has under the first name of a path."""
    return field.partition(".")[0].removesuffix("[]")


def links(kind: str, wanted: Listing, last: Key | None) -> Json:
    """The `_links` of a page that ends with the place `last`; None if there is nothing after it."""
    if last is None:
        return {}
    text = json.dumps([wanted.said, wanted.limit, last], separators=(",", ":"), ensure_ascii=False)
    token = urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return {"next": {"href": f"/{kind}?continuationToken={token}"}}


def documented(fields: Iterable[str] = ()) -> Json:
    """The parameters of a list for its OpenAPI; `fields` are all that it is filtered by, if any."""
    all_of = {re.escape(name): is_number(name) for name in sorted(fields or FIELDS)}
    numbers = "|".join(name for name, is_one in all_of.items() if is_one)
    texts = "|".join(name for name, is_one in all_of.items() if not is_one)
    names = f"({numbers}|{texts})"
    if not fields:  # there may be more below each of them
        texts = rf"({texts})(\[\])?(\.\w*[a-z](\[\])?)*"
    value = r"[^\s,=<>!~][^\s,]*"
    term = rf"^(({texts})=={value}(,{value})*|({numbers})(==|<=?|>=?)-?[0-9]{{1,15}})$"
    described: dict[str, tuple[str, Json]] = {
        "property": (
            "A filter: field, operator, value. Repeated ones must all be met; == takes a,b for or.",
            {
                "type": "array",
                "maxItems": MOST_TERMS,
                "items": {"type": "string", "pattern": term},
            },
        ),
        "orderby": (
            "Fields, separated by commas; - before one of them: descending.",
            {"type": "string", "pattern": f"^[+-]?{names}(,[+-]?{names}){{0,9}}$"},
        ),
        "limit": ("Not with count=true.", {"type": "integer", "minimum": 1, "maximum": MOST}),
        "continuationToken": ("From the link to the next page.", {"type": "string"}),
        "count": ("Only the number of items.", {"type": "boolean", "default": False}),
    }
    return {
        "parameters": [
            {"name": name, "in": "query", "description": words, "schema": schema}
            for name, (words, schema) in described.items()
        ]
    }


# Reading what is asked ---------------------------------------------------------------------


def parse(
    parameters: Iterable[tuple[str, str]], known: Callable[[str], bool], fields: str = ""
) -> Listing:
    """The listing that the parameters of an address ask for; Problem for what they may not be.

    `known` tells of a path whether there is such a field, and `fields`, as a sentence, which there
    are. What stands beside a token is the same as in the request that it came from, or is left out;
    but `limit` may change.
    """
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        if name.lower() not in map(str.lower, PARAMETERS):
            raise invalid("1451-400", f"Invalid params {cut(name)} provided in query params.")
        given.setdefault(name.lower(), []).append(value)
    _check_lengths(given)
    count = _count(given)
    said: Json = {name: given[name] for name in ("property", "orderby") if name in given}
    limit, after = DEFAULT_LIMIT, None
    if token := given.get("continuationtoken", [""])[-1]:
        before, limit, after = _read(token)
        if said and said != before:
            raise _value(
                "continuationToken", token, "It is that of a list with other filters or order."
            )
        _check_lengths(before)
        said = before
    for name, texts in said.items():
        if sum(text.count(",") + 1 if name == "orderby" else 1 for text in texts) > MOST_TERMS:
            raise invalid("1400-400", f"There are more than {MOST_TERMS} terms in {name}.")
    order = _order(said.get("orderby", [NEWEST_FIRST]), known, fields)
    if after is not None and len(after) != len(order) + 1:
        raise _value("continuationToken", token)
    conditions = tuple(_condition(each, known, fields) for each in said.get("property", []))
    return Listing(conditions, order, _limit(given) or limit, count, after, said)


def _check_lengths(given: Mapping[str, Sequence[str]]) -> None:
    for name in ("property", "orderby"):
        if sum(map(len, given.get(name, ()))) > MOST_TEXT:
            raise invalid("1400-400", f"All of {name} has more than {MOST_TEXT:,} characters.")
    if any(len(token) > MOST_TOKEN for token in given.get("continuationtoken", ())):
        raise invalid("1400-400", f"continuationToken has more than {MOST_TOKEN:,} characters.")


def _count(given: Mapping[str, Sequence[str]]) -> bool:
    """aepp sends `limit` and `count=False` together: only a `true` is too much."""
    word = given.get("count", ["false"])[-1].lower()
    if word not in ("true", "false"):
        raise _value("count", word, "It is true or false.")
    if word == "true" and "limit" in given:
        raise invalid(
            "1401-400",
            "The limit and count parameters cannot be given together in the same request. Please "
            "provide either only the limit or the count parameter and try again.",
        )
    return word == "true"


def _limit(given: Mapping[str, Sequence[str]]) -> int | None:
    if "limit" not in given:
        return None
    text = given["limit"][-1]
    if not _is_digits(text, 9) or not 1 <= int(text) <= MOST:
        raise _value("limit", text, f"It is a whole number from 1 to {MOST}.")
    return int(text)


def term_of(text: str) -> tuple[str, str, str]:
    """The field, the operator and the value of a term; empty texts for those that it lacks."""
    start = next((n for n, sign in enumerate(text) if sign in _OPERATOR), len(text))
    end = start
    while end < len(text) and text[end] in _OPERATOR:
        end += 1
    return text[:start].strip(), text[start:end], text[end:].strip()


def members_of(value: str) -> tuple[str, ...]:
    """The members of a list with commas. One pair of quotes round a member is no part of it, and
    a comma between the two separates nothing.
    """
    members, start, unclosed = list[str](), 0, set[str]()
    while start <= len(value):
        while start < len(value) and value[start].isspace():
            start += 1
        end, quote = -1, value[start : start + 1]
        if quote in _QUOTES and quote not in unclosed:
            end = _closing(value, start)
            unclosed.update(quote if end < 0 else "")  # nor does a later one close
        end = value.find(",", start if end < 0 else end)
        end = len(value) if end < 0 else end
        members.append(unquoted(value[start:end].strip()))
        start = end + 1
    return tuple(members)


def _closing(value: str, start: int) -> int:
    """Where the quote at `start` is closed at the end of a member; -1 where it is not."""
    at = value.find(value[start], start + 1)
    while at >= 0:
        rest = at + 1
        while rest < len(value) and value[rest].isspace():
            rest += 1
        if rest == len(value) or value[rest] == ",":
            return at
        at = value.find(value[start], at + 1)
    return -1


def unquoted(text: str) -> str:
    """A text without the one pair of quotes round it, if there is one."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        return text[1:-1]
    return text


def _is_path(field: str) -> bool:
    """Whether names, each perhaps with `[]`, are separated by single dots."""
    return all(_is_name(step.removesuffix("[]")) for step in field.split("."))


def _is_name(text: str) -> bool:
    return bool(text) and all(sign.isalnum() or sign in "_$@:/-" for sign in text)


def _is_digits(text: str, most: int) -> bool:
    return 1 <= len(text) <= most and text.isascii() and text.isdigit()


def _condition(text: str, known: Callable[[str], bool], fields: str) -> Condition:
    field, operator, value = term_of(text)
    if not field or not operator or not value:
        raise invalid("1453-400", f"Invalid query value {cut(text)} provided in query param.")
    if not _is_path(field) or not known(field):
        shown = f"Invalid field {cut(field)} in filter params. {fields}"
        raise invalid("1449-400", shown.rstrip())
    if operator in _UNMADE:
        raise invalid("1440-400", f"Operator '{operator}' not implemented.")
    if operator not in _KNOWN:
        raise invalid("1450-400", f"Invalid operator {cut(operator)} in filter params.")
    values = members_of(value)
    if "" in values:
        raise invalid("1453-400", f"Invalid query value {cut(text)} provided in query param.")
    if operator != "==":
        if len(values) > 1:
            raise invalid("1443-400", f"Operator '{operator}' is not allowed for multiple values.")
        if field in TEXTS:
            raise invalid("1448-400", f"Operator {operator} not supported for field {cut(field)}.")
    if (operator != "==" or is_number(field)) and (len(values) > 1 or number(values[0]) is None):
        raise _value(field, value)
    return Condition(field, operator, values)


def _order(
    texts: Sequence[str], known: Callable[[str], bool], fields: str
) -> tuple[tuple[str, bool], ...]:
    """A `+` in an address that was not escaped comes as a space."""
    found = []
    for text in ",".join(texts).split(","):
        field = text.strip()
        sign = field[:1] if field[:1] in ("+", "-") else ""
        field = field[len(sign) :]
        if not field or field[0] in "+-" or any(each.isspace() or each == ":" for each in field):
            raise invalid(
                "1432-400",
                "Sort order specified is not correct, prepend + for ascending order and - for "
                "descending order in the fieldName.",
            )
        if "[]" in field or not _is_path(field) or not known(field):
            example = "example are +name, -name, name."
            text = f"Incorrect field= {cut(field)} passed in orderBy, {example} {fields}"
            raise invalid("1433-400", text.rstrip())
        found.append((field, sign == "-"))
    return tuple(found)


def _read(token: str) -> tuple[Json, int, Key]:
    """What a token says. It may have been made by anybody."""
    try:
        return _unpacked(token)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, Problem):
        raise _value("continuationToken", token) from None


def _unpacked(token: str) -> tuple[Json, int, Key]:
    padded = (token + "=" * (-len(token) % 4)).encode()
    said, limit, after = json.loads(urlsafe_b64decode(padded), parse_constant=int)
    json.dumps([said, after], ensure_ascii=False).encode()  # raises for half a character
    types = {type(text) for texts in said.values() for text in texts}
    if said.keys() - {"property", "orderby"} or types - {str}:
        raise ValueError
    if not is_place(after):
        raise ValueError
    return said, _limit({"limit": [str(limit)]}) or DEFAULT_LIMIT, after


def is_place(found: Any) -> bool:
    """Whether something that a client sent is a place in an order, as `place` makes it."""
    try:
        return isinstance(found, list) and all(_is_rank(*each) for each in found)
    except (TypeError, LookupError):
        return False


def _is_rank(rank: int, value: Any = None) -> bool:
    """Whether it can be compared with what `_rank` makes, and SQLite can hold it."""
    small = not isinstance(value, int) or abs(value) < 1 << 63
    return small and type(value) in _RANKS[rank]


def _value(field: str, value: str, more: str = "") -> Problem:
    shown = f"Invalid value {cut(value)} for field {cut(field)}. {more}"
    return invalid("1452-400", shown.rstrip())


def is_number(field: str) -> bool:
    """Whether all that the field ever holds are numbers: a list of them is no value of it."""
    return field in NUMBERS or field.endswith("UTC")


def number(text: str) -> int | float | None:
    """The number that a text is; None if it is none, or none that can be compared."""
    digits = text.removeprefix("-")
    if _is_digits(digits, 18):
        return int(text)
    if not _is_decimal(digits):
        return None
    value = float(text)
    return value if abs(value) != float("inf") else None


def _is_decimal(text: str) -> bool:
    """Whether a text is digits, perhaps with a fraction, perhaps with an exponent."""
    mantissa, exponent, power = text.replace("E", "e").partition("e")
    whole, point, fraction = mantissa.partition(".")
    return (
        _is_digits(whole, 400)
        and (not point or _is_digits(fraction, 400))
        and (not exponent or _is_digits(power[1:] if power[:1] in ("+", "-") else power, 3))
    )


# Looking at items --------------------------------------------------------------------------


def matches(item: Json, conditions: Iterable[Condition]) -> bool:
    """Whether an item meets all of them."""
    return all(
        any(_holds(value, each) for value in values_at(item, each.field)) for each in conditions
    )


def _holds(value: Any, condition: Condition) -> bool:
    if condition.operator == "==":
        return any(_is(value, wanted) for wanted in condition.values)
    if isinstance(value, str):  # the tutorial's `startTime` is a text
        value = number(value)
    wanted = number(condition.values[0])
    if value is None or isinstance(value, bool | dict | list) or wanted is None:
        return False
    match condition.operator:
        case "<":
            return bool(value < wanted)
        case ">":
            return bool(value > wanted)
        case "<=":
            return bool(value <= wanted)
    return bool(value >= wanted)


def _is(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == wanted.lower()
    if isinstance(value, int | float):
        return value == number(wanted)
    return isinstance(value, str) and value.lower() == wanted.lower()


def values_at(item: Any, field: str) -> Iterator[Any]:
    """What is at a path: `[]` stands for each member of an array."""
    here, _, rest = field.partition(".")
    key = here.removesuffix("[]")
    if not isinstance(item, dict) or key not in item:
        return
    found = item[key]
    members = found if key != here and isinstance(found, list) else [found] if key == here else []
    for each in members:
        if rest:
            yield from values_at(each, rest)
        else:
            yield each


def place(item: Json, order: Iterable[tuple[str, bool]]) -> Key:
    """An item's place: what it has in each field of the order, then its id."""
    values = [next(values_at(item, field), None) for field, _ in order]
    most = MOST_PLACE // (len(values) + 1)
    return [*(_rank(value, most) for value in values), _rank(item.get("id"), most)]


def _rank(value: Any, most: int) -> list[Any]:
    """Values of all types in one order: nothing, booleans, numbers, texts without case, others.

    Of a text the first `most` characters count: a link to the next page has room for these.
    """
    if value is None:
        return [0]
    if isinstance(value, bool | int | float):
        return [1 if isinstance(value, bool) else 2, value]
    if isinstance(value, str):
        return [3, value.lower()[:most]]
    return [4, json.dumps(value, sort_keys=True)[:most]]


def compare(a: Key, b: Key, order: Sequence[tuple[str, bool]]) -> int:
    """Which of two places comes first: below 0 if it is `a`. Ids decide in the last field's way."""
    downs = [down for _, down in order]
    for one, other, down in zip(a, b, [*downs, downs[-1]], strict=True):
        if one != other:
            return 1 if (one < other) == down else -1
    return 0
