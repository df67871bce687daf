"""Functions of objects and maps, which are one kind here."""

from typing import Any

from engine.mapping.expression.functions.table import Table
from engine.mapping.expression.values import MOST, TransformError, kind, text, weigh

TABLE = Table("Hierarchies - Objects")
MAPS = "Hierarchies - Map"


@TABLE.define("is_empty(INPUT: any)", "boolean", 'is_empty("")', takes_null=True)
def is_empty(value: Any) -> bool:
    """Whether a value is null or an empty text, array or object."""
    return value is None or value == "" or (isinstance(value, list | dict) and not value)


def _paired(values: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(map(text, values[::2]), values[1::2], strict=True))


@TABLE.define(
    "to_object(KEY: any..., VALUE: any...)", "object", 'to_object("a", 1)', takes_null=True
)
def to_object(*values: Any) -> Any:
    """The object with these keys and values."""
    return weigh(_paired(values))


@TABLE.define(
    "to_map(KEY: any..., VALUE: any...)",
    "object",
    'to_map("a", 1)',
    takes_null=True,
    category=MAPS,
)
def to_map(*values: Any) -> Any:
    """The map with these keys and values."""
    return weigh(_paired(values))


@TABLE.define(
    "arrays_to_object(KEY: any..., ARRAY: array...)",
    "array",
    'arrays_to_object("sku", ["id1", "id2"], "price", [22.5, 14.35])',
    "arrays_to_objects",
    takes_null=True,
)
def arrays_to_object(*values: Any) -> Any:
    """One object for each position: its keys with the elements of the arrays at that position."""
    columns = [(text(key), array or []) for key, array in zip(*[iter(values)] * 2, strict=True)]
    longest = max((len(array) for _, array in columns), default=0)
    if longest * len(columns) > MOST:
        raise TransformError(f"an array has more than {MOST:,} elements")
    return weigh(
        [
            {key: array[n] if n < len(array) else None for key, array in columns}
            for n in range(longest)
        ]
    )


def _read(string: str, value_delimiter: str | None, field_delimiter: str | None) -> dict[str, str]:
    inner, outer = value_delimiter or ":", field_delimiter or ","
    found: dict[str, str] = {}
    for part in string.split(outer):
        key, delimiter, value = part.partition(inner)
        if delimiter and key.strip():
            found.setdefault(key.strip(), value.strip())
    return found


@TABLE.define(
    "str_to_object(STRING: text, VALUE_DELIMITER: text = null, FIELD_DELIMITER: text = null)",
    "object",
    'str_to_object("firstName=John,lastName=Doe", "=", ",")',
)
def str_to_object(string: str, inner: str | None, outer: str | None) -> Any:
    """The object whose keys and values a text lists, trimmed."""
    return weigh(_read(string, inner, outer))


@TABLE.define(
    "get_values(STRING: text, KEY: text, VALUE_DELIMITER: text, FIELD_DELIMITER: text)",
    "text",
    'get_values("firstName - John , lastName - Cena", "firstName", "-", ",")',
)
def get_values(string: str, key: str | None, inner: str | None, outer: str | None) -> str | None:
    """The value of a key in a text that lists keys and values."""
    return None if key is None else _read(string, inner, outer).get(key)


@TABLE.define("get_keys(OBJECT: object)", "array", 'get_keys({"a": 1})')
def get_keys(value: dict[str, Any]) -> list[str]:
    """The keys of an object, in their order."""
    return list(value)


@TABLE.define(
    "contains_key(PATH: path)", "boolean", "contains_key(data.browser)", "is_set", form="path"
)
def contains_key() -> None:
    """Whether the record has a path, its value may be null."""


@TABLE.define("nullify()", "any", "nullify()", takes_null=True)
def nullify() -> None:
    """Null: the attribute is not written."""


@TABLE.define(
    "map_get_values(MAP: object, KEY: any)",
    "any",
    'map_get_values({"a": 1}, "a")',
    category=MAPS,
)
def map_get_values(value: dict[str, Any], key: Any) -> Any:
    """The value of a key, or the array of the values of an array of keys."""
    if isinstance(key, list):
        return [value[name] for name in dict.fromkeys(map(text, key)) if name in value]
    return None if key is None else value.get(text(key))


@TABLE.define(
    "map_has_keys(MAP: object, KEY: any)",
    "boolean",
    'map_has_keys({"a": 1}, "a")',
    takes_null=True,
    category=MAPS,
)
def map_has_keys(value: dict[str, Any] | None, key: Any) -> bool:
    """Whether a map has a key, or any of an array of keys."""
    keys = key if isinstance(key, list) else [] if key is None else [key]
    return value is not None and any(text(each) in value for each in keys)


@TABLE.define(
    "add_to_map(MAP: object, OTHER: object, MORE: object...)",
    "object",
    'add_to_map({"a": 1}, {"b": 2})',
    takes_null=True,
    category=MAPS,
)
def add_to_map(*maps: dict[str, Any] | None) -> Any:
    """The entries of all maps; of equal keys the first one's."""
    found: dict[str, Any] = {}
    for each in maps:
        for key, value in (each or {}).items():
            found.setdefault(key, value)
    return weigh(found)


@TABLE.define(
    "object_to_map(VALUE: any...)",
    "object",
    'object_to_map("a", 1)',
    takes_null=True,
    category=MAPS,
    form="object_to_map",
)
def object_to_map(*values: Any) -> Any:
    """The map of an object, of keys and values, or of an array keyed by an attribute."""
    if len(values) == 1:
        value = values[0]
        if value is None or isinstance(value, dict):
            return value
        raise TransformError(f"{kind(value)} is no object")
    if len(values) == 2 and isinstance(values[0], list):
        return array_to_map(*values)
    if len(values) == 2 and values[0] is None:
        return None
    if len(values) % 2:
        raise TransformError("keys and values come in pairs")
    return weigh(_paired(values))


@TABLE.define(
    "array_to_map(ARRAY: array, KEY: text)",
    "object",
    'array_to_map([{"type": "home"}], "type")',
    category=MAPS,
)
def array_to_map(array: list[Any], attribute: Any) -> Any:
    """The elements of an array by their attribute KEY; of equal ones the first."""
    found: dict[str, Any] = {}
    name = text(attribute)
    for element in array:
        if isinstance(element, dict) and element.get(name) is not None:
            found.setdefault(text(element[name]), element)
    return weigh(found)
