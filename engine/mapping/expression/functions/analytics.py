"""Adobe Analytics' own texts.

Events: `name=value:id`, with commas between. Products: `category;name;quantity;price;events;eVars`,
with commas between products and `|` between the events or eVars of one.
"""

from collections.abc import Iterator

from engine.mapping.expression.functions.table import Table

TABLE = Table("Analytics")
_COLUMNS = ("categories", "names", "quantities", "prices")


def _event(events: str, name: str, between: str) -> tuple[str | None, str | None] | None:
    """Value and id of an event; None if it is not there."""
    for each in events.split(between):
        before, colon, id_ = each.strip().partition(":")
        found, equals, value = before.partition("=")
        if found.strip() == name:
            return value if equals else None, id_ if colon else None
    return None


@TABLE.define(
    "aa_get_event_id(EVENTS: text, NAME: text)",
    "text",
    'aa_get_event_id("event101=5:123456,scOpen", "event101")',
)
def aa_get_event_id(events: str, name: str | None) -> str | None:
    """The id of an event."""
    found = None if name is None else _event(events, name, ",")
    return found[1] if found else None


@TABLE.define(
    "aa_get_event_value(EVENTS: text, NAME: text)",
    "text",
    'aa_get_event_value("event101=5:123456,scOpen", "event101")',
)
def aa_get_event_value(events: str, name: str | None) -> str | None:
    """The value of an event, "1" if it has none; null if it is not there."""
    found = None if name is None else _event(events, name, ",")
    return (found[0] or "1") if found else None


def _products(products: str) -> Iterator[list[str]]:
    for product in products.split(","):
        yield [part.strip() for part in product.split(";")]


def _part(product: list[str], number: int) -> str | None:
    return (product[number] or None) if number < len(product) else None


def _define(number: int, name: str) -> None:
    def code(products: str) -> list[str | None]:
        return [_part(product, number) for product in _products(products)]

    code.__doc__ = f"The {name} of all products."
    TABLE.define(
        f"aa_get_product_{name}(PRODUCTS: text)",
        "array",
        f'aa_get_product_{name}(";Example product 1;1;3.50")',
    )(code)


for _number, _name in enumerate(_COLUMNS):
    _define(_number, _name)


@TABLE.define(
    "aa_get_product_event_values(PRODUCTS: text, NAME: text)",
    "array",
    'aa_get_product_event_values(";Example product 1;1;4.20;event1=2.3|event2=5:1", "event1")',
)
def aa_get_product_event_values(products: str, name: str | None) -> list[str | None]:
    """The values of an event, one for each product."""
    found = []
    for product in _products(products):
        event = _event(_part(product, 4) or "", name, "|") if name else None
        found.append((event[0] or "1") if event else None)
    return found


@TABLE.define(
    "aa_get_product_evars(PRODUCTS: text, NAME: text)",
    "array",
    'aa_get_product_evars(";Example product 1;1;4.20;;eVar1=a", "eVar1")',
)
def aa_get_product_evars(products: str, name: str | None) -> list[str | None]:
    """The values of an eVar, one for each product."""
    found = []
    for product in _products(products):
        pairs = dict(
            pair.split("=", 1) for pair in (_part(product, 5) or "").split("|") if "=" in pair
        )
        found.append(pairs.get(name or ""))
    return found
