"""The lists of the Schema Registry: `property`, `orderby`, `start` and `limit`, and their pages."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from fastapi import Request

from engine.control.api import catalog_filters
from engine.control.api.listing import MOST_TOKEN, query_parameters
from engine.control.api.listing_filter import number, top_name
from engine.control.api.listing_order import Key, Order, compare_keys, is_sort_key, sort_key
from engine.control.api.problems import invalid

Json = dict[str, Any]

DEFAULT_LIMIT, MOST = 300, 500  # resources of a page
_CREATED = "meta:registryMetadata.repo:createdDate"
_ORDERS = {
    "created": _CREATED,
    "updated": "meta:registryMetadata.repo:lastModifiedDate",
}  # short names in an order
FIELDS = frozenset(
    {
        "$id", "$schema", "title", "description", "type", "version", "properties", "definitions",
        "$defs", "allOf", "required", "imsOrg", "meta:altId", "meta:resourceType", "meta:extends",
        "meta:class", "meta:xdmType", "meta:abstract", "meta:extensible", "meta:intendedToExtend",
        "meta:containerId", "meta:tenantNamespace", "meta:registryMetadata", "meta:immutableTags",
        "meta:behaviorType", "@id", "@type", "xdm:sourceSchema", "xdm:sourceProperty",
        "xdm:namespace", "xdm:isPrimary", *_ORDERS,
    }
)  # fmt: skip
"""Fields of a resource. A filter by one of them is valid although no resource has it now."""
PARAMETERS = query_parameters(
    {
        "property": (
            catalog_filters.DESCRIPTION + " Those of one text are separated by commas.",
            {"type": "array", "items": catalog_filters.SHORT_TEXT},
        ),
        "orderby": (
            "Fields, separated by commas; - before one of them: descending.",
            catalog_filters.SHORT_TEXT,
        ),
        "start": (
            "A value of the first field of the order, or `_page.next`: the page starts after it.",
            {"type": "string", "maxLength": MOST_TOKEN},
        ),
        "limit": (
            "Maximum number of resources.",
            {"type": "integer", "minimum": 1, "maximum": MOST},
        ),
    }
)


def page(
    request: Request,
    path: str,
    items: Collection[Json],
    shown: Callable[[Json], Any] = lambda item: item,
) -> Json:
    """Return the response to a list; `items` are all of them, by which it is filtered and ordered.

    `path` is that of the list below the registry's own; `shown` returns an item as it is listed.
    """
    values = catalog_filters.values_by_name(request)
    known = FIELDS.union(*items)
    orderby = ",".join(values.get("orderby", ["created"]))

    def is_known(field: str) -> bool:
        return top_name(field) in known

    terms = catalog_filters.parse_terms(values.get("property", []), is_known, joined=True)
    terms = [replace(term, field=_ORDERS.get(term.field, term.field)) for term in terms]
    matching = [item for item in items if all(term.holds(item) for term in terms)]
    fields = catalog_filters.parse_order([orderby], is_known, orderby)
    order = tuple((_ORDERS.get(field, field), descending) for field, descending in fields)
    limit_text = values.get("limit", [str(DEFAULT_LIMIT)])[-1]
    limit = catalog_filters.parse_whole("limit", limit_text, 1, MOST)
    keyed = [item | {"id": item.get("$id", item.get("@id"))} for item in matching]
    found, following = _page(keyed, order, values.get("start", [None])[-1], limit)
    links: Json = {"next": None}
    if following is not None:
        query = request.url.include_query_params(start=following).query
        links["next"] = {"href": f"{path}?{query}"}
    results = [shown({k: v for k, v in each.items() if k != "id"}) for each in found]
    about = {"orderby": orderby, "next": following, "count": len(results)}
    return {"results": results, "_page": about, "_links": links}


def _page(
    items: list[Json], order: Order, start: str | None, limit: int
) -> tuple[list[Json], str | None]:
    """Return the items after `start`, and the start of the next page; None on the last one."""
    items = catalog_filters.in_order(items, order)
    if start is not None:
        if len(start) > MOST_TOKEN:
            raise invalid("1400-400", f"start has more than {MOST_TOKEN:,} characters.")
        items = [each for each in items if _is_after(sort_key(each, order), start, order)]
    shown, rest = items[:limit], items[limit:]
    if not rest:
        return shown, None
    last, first = sort_key(shown[-1], order), sort_key(rest[0], order)
    if last[0] != first[0] and last[0][0] in (2, 3):  # the value alone is a start
        text = str(last[0][1])
        if _is_after(first, text, order) and not _is_after(last, text, order):
            return shown, text
    packed = json.dumps(last, separators=(",", ":"), ensure_ascii=False).encode()
    return shown, urlsafe_b64encode(packed).decode().rstrip("=")


def _is_after(key: Key, start: str, order: Order) -> bool:
    """Return whether a sort key comes after `start`: a sort key, or a value of the first field."""
    if (after := _decode_start(start, len(order) + 1)) is not None:
        return compare_keys(key, after, order) > 0
    rank, *value = key[0]
    wanted: Any = number(start) if rank == 2 else start.lower()
    if rank not in (2, 3) or wanted is None:
        return bool((rank > 3) != order[0][1])
    first: Any = value[0]
    return bool(first < wanted if order[0][1] else first > wanted)


def _decode_start(start: str, length: int) -> Key | None:
    """Return the sort key that `start` encodes; None for other texts."""
    try:
        key = json.loads(urlsafe_b64decode((start + "=" * (-len(start) % 4)).encode()))
    except (ValueError, RecursionError):
        return None
    return key if is_sort_key(key) and len(key) == length else None
