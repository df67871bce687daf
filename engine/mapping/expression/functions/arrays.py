"""Functions of arrays."""

from typing import Any

from engine.mapping.expression.functions.table import Table
from engine.mapping.expression.values import TransformError, bounded, kind, text, weigh

TABLE = Table("Hierarchies - Arrays")


@TABLE.define(
    "coalesce(VALUE: any...)",
    "any",
    'coalesce(null, "first")',
    takes_null=True,
    spreads=True,
    form="coalesce",
)
def coalesce(*values: Any) -> Any:
    """The first value that is not null."""
    return next((value for value in values if value is not None), None)


@TABLE.define("first(VALUE: any...)", "any", 'first("1", "2")', takes_null=True, spreads=True)
def first(*values: Any) -> Any:
    """The first value."""
    return values[0] if values else None


@TABLE.define("last(VALUE: any...)", "any", 'last("1", "2")', takes_null=True, spreads=True)
def last(*values: Any) -> Any:
    """The last value."""
    return values[-1] if values else None


@TABLE.define(
    "add_to_array(ARRAY: array, VALUE: any...)",
    "array",
    'add_to_array(["a"], "b")',
    takes_null=True,
)
def add_to_array(array: list[Any] | None, *values: Any) -> Any:
    """The array with these values after its elements."""
    return weigh([*(array or []), *values])


@TABLE.define(
    "join_arrays(ARRAY: array, OTHER: array...)",
    "array",
    'join_arrays(["a"], ["b"])',
    takes_null=True,
)
def join_arrays(*arrays: list[Any] | None) -> Any:
    """The elements of all arrays, one array after another."""
    return weigh([element for array in arrays for element in array or []])


@TABLE.define(
    "to_array(INCLUDE_NULLS: boolean, VALUE: any...)",
    "array",
    "to_array(false, 1, null)",
    takes_null=True,
)
def to_array(include_nulls: Any, *values: Any) -> Any:
    """The array of these values, with or without those that are null."""
    return weigh([value for value in values if include_nulls or value is not None])


@TABLE.define("size_of(INPUT: any)", "integer", "size_of([1, 2])", takes_null=True)
def size_of(value: Any) -> int:
    """The number of elements, entries or characters; 0 of null."""
    if value is None:
        return 0
    if isinstance(value, str | list | dict):
        return len(value)
    raise TransformError(f"a value of kind {kind(value)} has no size")


@TABLE.define(
    "upsert_array_append(ARRAY: array, INDEX: integer = null)",
    "array",
    "upsert_array_append([123])",
)
def upsert_array_append(array: list[Any], _index: Any) -> list[Any]:
    """The array as it is: what it does to a profile does not matter to an event."""
    return array


@TABLE.define(
    "upsert_array_replace(ARRAY: array, INDEX: integer = null)",
    "array",
    "upsert_array_replace([123], 1)",
)
def upsert_array_replace(array: list[Any], _index: Any) -> list[Any]:
    """The array as it is: what it does to a profile does not matter to an event."""
    return array


def _flat(array: list[Any]) -> list[Any]:
    weigh(array)
    found: list[Any] = []
    pending = [iter(array)]
    while pending:
        for element in pending[-1]:
            if isinstance(element, list):
                pending.append(iter(element))
                break
            found.append(element)
        else:
            pending.pop()
    return found


@TABLE.define(
    "array_to_string(SEPARATOR: text, ARRAY: array)", "text", 'array_to_string(";", ["a", "b"])'
)
def array_to_string(separator: str, array: list[Any] | None) -> str | None:
    """The text forms of an array's elements at all levels, with SEPARATOR between them."""
    return None if array is None else bounded(separator.join(map(text, _flat(array))))


@TABLE.define("flattenArray(ARRAY: array)", "array", "flattenArray([[1], [2]])")
def flatten_array(array: list[Any]) -> list[Any]:
    """The elements of an array at all levels, in one array."""
    return _flat(array)


@TABLE.define(
    "filterArray(ARRAY: array, CONDITION: lambda)",
    "array",
    "filterArray([5, 6], x -> x > 5)",
    form="lambda",
)
def filter_array() -> None:
    """The elements of an array for which a condition is true."""


@TABLE.define(
    "transformArray(ARRAY: array, CHANGE: lambda)",
    "array",
    "transformArray([5, 6], x -> x + 1)",
    form="lambda",
)
def transform_array() -> None:
    """The elements of an array, each changed by an expression."""
