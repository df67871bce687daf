"""Flow Service's lists: `property`, `orderby`, `limit`, `continuationToken` and `count`, as its
guide to sorting and filtering and its error catalogue describe them.

Every text of a client has a maximum length.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastapi import Request

from engine.control.api.listing_filter import (
    FIELDS,
    Condition,
    IsKnown,
    Json,
    invalid_value,
    is_digits,
    is_number,
    matches,
    parse_condition,
    top_name,
)
from engine.control.api.listing_order import Key, Order, is_sort_key, parse_order, sort_items
from engine.control.api.problems import Problem, cut, invalid

DEFAULT_LIMIT = 20
MOST = 1000  # the specification's `maximum` for a search
MOST_TERMS = 50  # of one kind
MOST_TEXT = 2_000  # characters of all filters, and of all orders, of a list
MOST_TOKEN = 12_000  # characters of a token: it repeats filters and order, and has a sort key
NEWEST_FIRST = "-createdAt"
PARAMETERS = ("property", "orderby", "limit", "continuationToken", "count")
# Fields that need more than the resource itself.
GATHERED = frozenset(
    {"providerRefId", "inheritedAttributes", "runs", "lastOperation", "lastRunDetails"}
)


@dataclass(frozen=True, slots=True)
class Listing:
    """The parsed query parameters of a list.

    after  the sort key of the last item of the page before
    terms  the texts of `property` and `orderby`, which a continuation token repeats
    """

    conditions: tuple[Condition, ...]
    order: Order
    limit: int
    count: bool
    after: Key | None
    terms: Json


def page(
    request: Request,
    kind: str,
    items: list[Json],
    complete: Callable[[Json], Json] = lambda item: item,
) -> Json:
    """Return the response to a list of `kind`, the last part of its path; `items` are all of them.

    `complete` adds the GATHERED fields to an item: to the items of the page only, unless the list
    is filtered or ordered by such a field.
    """
    known = FIELDS.union(*items)
    listing = parse(request.query_params.multi_items(), lambda field: top_name(field) in known)
    used = [each.field for each in listing.conditions] + [field for field, _ in listing.order]
    if not GATHERED.isdisjoint(map(top_name, used)):
        items, complete = [complete(item) for item in items], lambda item: item
    matching = [item for item in items if matches(item, listing.conditions)]
    if listing.count:
        return {"count": len(matching)}
    keyed = sort_items(matching, listing.order, listing.after)
    shown = keyed[: listing.limit]
    last = shown[-1][0] if len(keyed) > len(shown) else None
    return {"items": [complete(item) for _, item in shown], "_links": links(kind, listing, last)}


def links(kind: str, listing: Listing, last: Key | None) -> Json:
    """Return the `_links` of a page whose last sort key is `last`; None where no item follows."""
    if last is None:
        return {}
    content = [listing.terms, listing.limit, last]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    token = urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return {"next": {"href": f"/{kind}?continuationToken={token}"}}


def documented(fields: Iterable[str] = ()) -> Json:
    """Return the parameters of a list for its OpenAPI.

    `fields` are all fields that it can be filtered by; without them, any field of an item.
    """
    names = sorted(fields or FIELDS)
    numbers = "|".join(re.escape(name) for name in names if is_number(name))
    texts = "|".join(re.escape(name) for name in names if not is_number(name))
    name = f"({numbers}|{texts})"
    if not fields:  # a path may lead further
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
            {"type": "string", "pattern": f"^[+-]?{name}(,[+-]?{name}){{0,9}}$"},
        ),
        "limit": ("Not with count=true.", {"type": "integer", "minimum": 1, "maximum": MOST}),
        "continuationToken": ("From the link to the next page.", {"type": "string"}),
        "count": ("Only the number of items.", {"type": "boolean", "default": False}),
    }
    return query_parameters(described)


def query_parameters(described: Mapping[str, tuple[str, Json]]) -> Json:
    """Return `openapi_extra` for query parameters: each name with its description and schema."""
    return {
        "parameters": [
            {"name": name, "in": "query", "description": description, "schema": schema}
            for name, (description, schema) in described.items()
        ]
    }


# Parameters --------------------------------------------------------------------------------


def parse(parameters: Iterable[tuple[str, str]], is_known: IsKnown, fields: str = "") -> Listing:
    """Parse the query parameters of a list; raise Problem for what they may not be.

    `fields` is a sentence that names the known fields. `property` and `orderby` beside a token are
    those of the request that the token came from, or are left out; `limit` may change.
    """
    values: dict[str, list[str]] = {}  # by lower-case name
    for name, value in parameters:
        if name.lower() not in map(str.lower, PARAMETERS):
            raise invalid("1451-400", f"Invalid params {cut(name)} provided in query params.")
        values.setdefault(name.lower(), []).append(value)
    _check_lengths(values)
    count = _parse_count(values)
    terms: Json = {name: values[name] for name in ("property", "orderby") if name in values}
    limit, after = DEFAULT_LIMIT, None
    if token := values.get("continuationtoken", [""])[-1]:
        token_terms, limit, after = _parse_token(token)
        if terms and terms != token_terms:
            raise invalid_value(
                "continuationToken", token, "It is that of a list with other filters or order."
            )
        _check_lengths(token_terms)
        terms = token_terms
    for name, texts in terms.items():
        if sum(text.count(",") + 1 if name == "orderby" else 1 for text in texts) > MOST_TERMS:
            raise invalid("1400-400", f"There are more than {MOST_TERMS} terms in {name}.")
    order = parse_order(terms.get("orderby", [NEWEST_FIRST]), is_known, fields)
    if after is not None and len(after) != len(order) + 1:
        raise invalid_value("continuationToken", token)
    conditions = tuple(
        parse_condition(text, is_known, fields) for text in terms.get("property", [])
    )
    return Listing(conditions, order, _parse_limit(values) or limit, count, after, terms)


def _check_lengths(values: Mapping[str, Sequence[str]]) -> None:
    for name in ("property", "orderby"):
        if sum(map(len, values.get(name, ()))) > MOST_TEXT:
            raise invalid("1400-400", f"All of {name} has more than {MOST_TEXT:,} characters.")
    if any(len(token) > MOST_TOKEN for token in values.get("continuationtoken", ())):
        raise invalid("1400-400", f"continuationToken has more than {MOST_TOKEN:,} characters.")


def _parse_count(values: Mapping[str, Sequence[str]]) -> bool:
    """Parse `count`. aepp sends `limit` and `count=False` together: only `true` is an error."""
    text = values.get("count", ["false"])[-1].lower()
    if text not in ("true", "false"):
        raise invalid_value("count", text, "It is true or false.")
    if text == "true" and "limit" in values:
        raise invalid(
            "1401-400",
            "The limit and count parameters cannot be given together in the same request. Please "
            "provide either only the limit or the count parameter and try again.",
        )
    return text == "true"


def _parse_limit(values: Mapping[str, Sequence[str]]) -> int | None:
    if "limit" not in values:
        return None
    text = values["limit"][-1]
    if not is_digits(text, 9) or not 1 <= int(text) <= MOST:
        raise invalid_value("limit", text, f"It is a whole number from 1 to {MOST}.")
    return int(text)


def _parse_token(token: str) -> tuple[Json, int, Key]:
    try:
        return _decode_token(token)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, Problem):
        raise invalid_value("continuationToken", token) from None


def _decode_token(token: str) -> tuple[Json, int, Key]:
    padded = (token + "=" * (-len(token) % 4)).encode()
    terms, limit, after = json.loads(urlsafe_b64decode(padded), parse_constant=int)
    json.dumps([terms, after], ensure_ascii=False).encode()  # raises for a lone surrogate
    types = {type(text) for texts in terms.values() for text in texts}
    if terms.keys() - {"property", "orderby"} or types - {str} or not is_sort_key(after):
        raise ValueError
    return terms, _parse_limit({"limit": [str(limit)]}) or DEFAULT_LIMIT, after
