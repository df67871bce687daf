"""The order of a list: Flow Service's `orderby` parameter, and the sort keys of items.

Pure. A page of a list starts after a sort key, not at a number: rows that are added meanwhile
make no page wrong.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cmp_to_key, partial
from typing import Any

from engine.control.api.listing_filter import IsKnown, Json, is_path, values_at
from engine.control.api.problems import cut, invalid

Order = tuple[tuple[str, bool], ...]  # (field, whether descending), the main one first
Key = list[Any]  # the sort key of an item: [rank, value] of each field of the order and of its id

MOST_KEY = 1_600  # characters of a sort key
_RANKS: tuple[tuple[type, ...], ...] = ((type(None),), (bool,), (int, float), (str,), (str,))


def split_sign(text: str) -> tuple[str, bool]:
    """Split a term of an order into its field and whether it is descending.

    An unescaped `+` in a URL arrives as a space.
    """
    field = text.strip()
    sign = field[:1] if field[:1] in ("+", "-") else ""
    return field[len(sign) :], sign == "-"


def parse_order(texts: Sequence[str], is_known: IsKnown, fields: str) -> Order:
    """Parse all `orderby` of a request; raise Problem for what Flow Service rejects.

    `fields` is the end of the error for an unknown field: a sentence that names the known ones.
    """
    order = []
    for text in ",".join(texts).split(","):
        field, descending = split_sign(text)
        if not field or field[0] in "+-" or any(each.isspace() or each == ":" for each in field):
            raise invalid(
                "1432-400",
                "Sort order specified is not correct, prepend + for ascending order and - for "
                "descending order in the fieldName.",
            )
        if "[]" in field or not is_path(field) or not is_known(field):
            example = "example are +name, -name, name."
            detail = f"Incorrect field= {cut(field)} passed in orderBy, {example} {fields}"
            raise invalid("1433-400", detail.rstrip())
        order.append((field, descending))
    return tuple(order)


def sort_items(
    items: Iterable[Json], order: Sequence[tuple[str, bool]], after: Key | None = None
) -> list[tuple[Key, Json]]:
    """Sort items, equal ones by their ids; keep those after a sort key. Return (key, item)."""
    compare = cmp_to_key(partial(compare_keys, order=order))
    keyed = [(sort_key(item, order), item) for item in items]
    if after is not None:
        keyed = [pair for pair in keyed if compare(pair[0]) > compare(after)]
    return sorted(keyed, key=lambda pair: compare(pair[0]))


def sort_key(item: Json, order: Iterable[tuple[str, bool]]) -> Key:
    """Return the sort key of an item."""
    values = [next(values_at(item, field), None) for field, _ in order]
    most = MOST_KEY // (len(values) + 1)
    return [*(_ranked(value, most) for value in values), _ranked(item.get("id"), most)]


def _ranked(value: Any, most: int) -> list[Any]:
    """Return a value with its rank: null, booleans, numbers, texts without case, all others.

    Only the first `most` characters of a text count: the link to the next page has to hold them.
    """
    if value is None:
        return [0]
    if isinstance(value, bool | int | float):
        return [1 if isinstance(value, bool) else 2, value]
    if isinstance(value, str):
        return [3, value.lower()[:most]]
    return [4, json.dumps(value, sort_keys=True)[:most]]


def compare_keys(a: Key, b: Key, order: Sequence[tuple[str, bool]]) -> int:
    """Compare two sort keys: below 0 if `a` comes first. The id follows the last field's way."""
    descents = [descending for _, descending in order]
    for one, other, descending in zip(a, b, [*descents, descents[-1]], strict=True):
        if one != other:
            return 1 if (one < other) == descending else -1
    return 0


def is_sort_key(value: Any) -> bool:
    """Return whether JSON from a client is a sort key that can be compared."""
    try:
        return isinstance(value, list) and all(_is_ranked(*each) for each in value)
    except (TypeError, LookupError):
        return False


def _is_ranked(rank: int, value: Any = None) -> bool:
    """Return whether a value has the type of its rank, and fits SQLite if it is an integer."""
    small = not isinstance(value, int) or abs(value) < 1 << 63
    return small and type(value) in _RANKS[rank]
