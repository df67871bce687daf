"""jsonschema's validator with keywords that take linear time. Pure.

jsonschema's own keywords run Python's regular expressions, which backtrack, and compare each
element of an array with each other one. The keywords here give the same errors with the same
messages.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache, partial
from itertools import islice
from typing import Any

from engine.transform.patterns import compiled, is_regex

LONGEST_FORMAT = 8192  # characters of a text whose format is checked; a longer one is invalid
SLOW_FORMATS = {"iri": 1000, "iri-reference": 1000}  # formats that take 1 ms a character
MOST_ERRORS = 100  # errors of one instance

_IN_PLACE = ("allOf", "anyOf", "oneOf")


def errors_of(validator: Any, instance: Any) -> Iterator[Any]:
    """Yield the first MOST_ERRORS errors of `instance`."""
    return islice(validator.iter_errors(instance), MOST_ERRORS)


@cache
def format_checker() -> Any:
    """Return a checker of all formats of jsonschema that refuses texts which are too long."""
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import FormatError

    class Bounded(FormatChecker):  # type: ignore[misc]
        def check(self, instance: object, format: str) -> None:  # noqa: A002 - as it is called
            longest = SLOW_FORMATS.get(format, LONGEST_FORMAT)
            long = isinstance(instance, str) and len(instance) > longest
            if long and format in self.checkers:
                raise FormatError(f"{instance!r} is not a {format!r}")
            super().check(instance, format)

    checker = Bounded(formats=())
    checker.checkers = {
        **Draft202012Validator.FORMAT_CHECKER.checkers,
        "regex": (lambda text: not isinstance(text, str) or is_regex(text), ()),
    }
    return checker


@cache
def validator_class() -> Any:
    """Return the class of the validators; imports jsonschema, which takes 70 ms."""
    from jsonschema import Draft202012Validator as Validator
    from jsonschema.validators import extend

    found = extend(
        Validator,
        {
            "additionalProperties": _additional_properties,
            "anyOf": _any_of,
            "enum": _enum,
            "multipleOf": partial(_multiple_of, Validator.VALIDATORS["multipleOf"]),
            "oneOf": _one_of,
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "unevaluatedItems": _unevaluated_items,
            "unevaluatedProperties": _unevaluated_properties,
            "uniqueItems": _unique_items,
        },
        format_checker=format_checker(),
    )
    original = found.evolve

    def evolve(self: Any, **changes: Any) -> Any:
        """Return a validator of this class; the original takes the class that `$schema` names."""
        schema = changes.get("schema", self.schema)
        if isinstance(schema, dict) and "$schema" in schema:
            changes["schema"] = {k: v for k, v in schema.items() if k != "$schema"}
        return original(self, **changes)

    found.evolve = evolve
    return found


def validator(document: Any) -> Any:
    """Return a validator of the schema `document` that checks formats too."""
    return validator_class()(document, format_checker=format_checker())


def meta_validator() -> Any:
    """Return a validator of schemas that does not check their regular expressions."""
    found = validator_class()
    without = type(format_checker())(formats=())
    without.checkers = {k: v for k, v in format_checker().checkers.items() if k != "regex"}
    return found(found.META_SCHEMA, format_checker=without)


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _pattern(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "string"):
        return
    sought = compiled(pattern)
    if len(instance) > sought.longest:
        yield _error(f"{instance!r} is too long to be matched with {pattern!r}")
    elif not sought.found_in(instance):
        yield _error(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, schema in patterns.items():
        sought = compiled(pattern)
        for key, value in instance.items():
            if sought.found_in(key):
                yield from validator.descend(value, schema, path=key, schema_path=pattern)


def _matches(schema: Any) -> Callable[[str], bool]:
    """Return a test of keys: whether `patternProperties` of `schema` has a pattern for it."""
    sought = [compiled(pattern) for pattern in schema.get("patternProperties", ())]
    return lambda key: any(each.found_in(key) for each in sought)


def _additional_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    known, matches = schema.get("properties", {}), _matches(schema)
    extras = [key for key in instance if key not in known and not matches(key)]
    if validator.is_type(value, "object"):
        for extra in extras:
            yield from validator.descend(instance[extra], value, path=extra)
    elif not value and extras:
        if "patternProperties" in schema:
            verb = "does" if len(extras) == 1 else "do"
            patterns = ", ".join(map(repr, sorted(schema["patternProperties"])))
            joined = ", ".join(map(repr, sorted(extras)))
            yield _error(f"{joined} {verb} not match any of the regexes: {patterns}")
        else:
            listed = _listed(sorted(extras))
            yield _error(f"Additional properties are not allowed ({listed} unexpected)")


def _listed(extras: list[Any]) -> str:
    verb = "was" if len(extras) == 1 else "were"
    return f"{', '.join(map(repr, extras))} {verb}"


def _valid(validator: Any, schema: Any, instance: Any) -> bool:
    return next(validator.descend(instance, schema), None) is None


def _any_of(validator: Any, schemas: Any, instance: Any, _: Any) -> Iterator[Any]:
    if not any(_valid(validator, schema, instance) for schema in schemas):
        yield _error(f"{instance!r} is not valid under any of the given schemas")


def _one_of(validator: Any, schemas: Any, instance: Any, _: Any) -> Iterator[Any]:
    valid = [schema for schema in schemas if _valid(validator, schema, instance)]
    if not valid:
        yield _error(f"{instance!r} is not valid under any of the given schemas")
    elif len(valid) > 1:
        reprs = ", ".join(map(repr, [*valid[1:], valid[0]]))
        yield _error(f"{instance!r} is valid under each of {reprs}")


def _enum(_: Any, values: Any, instance: Any, __: Any) -> Iterator[Any]:
    wanted = _identity(instance)
    if isinstance(instance, str):
        valid = instance in values
    else:
        valid = any(_identity(value) == wanted for value in values)
    if not valid:  # the error shows some of many values; jsonschema's shows all
        more = ", …]" if len(values) > MOST_ERRORS else "]"
        shown = ", ".join(map(repr, values[:MOST_ERRORS])) + more
        yield _error(f"{instance!r} is not one of [{shown}")


def _multiple_of(
    original: Any, validator: Any, divisor: Any, instance: Any, schema: Any
) -> Iterator[Any]:
    try:
        yield from original(validator, divisor, instance, schema)
    except OverflowError:  # a number that no double holds
        if Fraction(instance) % Fraction(divisor):
            yield _error(f"{instance!r} is not a multiple of {divisor}")


def _unique_items(validator: Any, wanted: Any, instance: Any, _: Any) -> Iterator[Any]:
    if not wanted or not validator.is_type(instance, "array"):
        return
    if len(set(map(_identity, instance))) < len(instance):
        yield _error(f"{instance!r} has non-unique elements")


def _identity(value: Any) -> Any:
    """Return a hashable value, equal for values that JSON Schema calls equal: 1, 1.0, not true."""
    if isinstance(value, bool):
        return bool, value
    if isinstance(value, dict):
        return dict, frozenset((key, _identity(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return list, tuple(map(_identity, value))
    return value


def _subschemas_in_place(validator: Any, schema: Any, instance: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the subschemas that apply to the same instance and accept it, with their validators."""
    if "$ref" in schema:
        resolved = validator._resolver.lookup(schema["$ref"])
        inner = validator.evolve(schema=resolved.contents, _resolver=resolved.resolver)
        yield inner, resolved.contents
    for keyword in _IN_PLACE:
        for part in schema.get(keyword, ()):
            if _valid(validator, part, instance):
                yield validator, part
    if "if" in schema:
        holds = _valid(validator, schema["if"], instance)
        if holds:
            yield validator, schema["if"]
        branch = "then" if holds else "else"
        if branch in schema:
            yield validator, schema[branch]
    if isinstance(instance, dict):
        for key, part in schema.get("dependentSchemas", {}).items():
            if key in instance:
                yield validator, part


def _evaluated(validator: Any, instance: Any, schema: Any, *, top: bool = True) -> set[Any]:
    """Return the keys or indexes in `instance` that `schema` evaluates.

    `top`: by other keywords than its own `unevaluatedProperties` and `unevaluatedItems`.
    """
    if not isinstance(schema, dict):
        return set()
    if isinstance(instance, dict):
        members, properties, matches = instance, schema.get("properties", {}), _matches(schema)
        found = {key for key in instance if key in properties or matches(key)}
        keywords = ["additionalProperties", "unevaluatedProperties"]
    else:
        members = dict(enumerate(instance))
        if "items" in schema:
            return set(members)
        found = set(range(len(schema.get("prefixItems", ()))))
        keywords = ["contains", "unevaluatedItems"]
    for keyword in keywords[: 1 if top else 2]:
        if keyword in schema:
            inner = schema[keyword]
            found |= {at for at, value in members.items() if _valid(validator, inner, value)}
    for part_validator, part in _subschemas_in_place(validator, schema, instance):
        found |= _evaluated(part_validator, instance, part, top=False)
    return found


def _unevaluated_items(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "array"):
        return
    known = _evaluated(validator, instance, schema)
    rest = (item for at, item in enumerate(instance) if at not in known)
    extras = [item for item in rest if not _valid(validator, value, item)]
    if extras:
        yield _error(f"Unevaluated items are not allowed ({_listed(extras)} unexpected)")


def _unevaluated_properties(
    validator: Any, value: Any, instance: Any, schema: Any
) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    known = _evaluated(validator, instance, schema)
    rest = ((key, inner) for key, inner in instance.items() if key not in known)
    extras = [key for key, inner in rest if not _valid(validator, value, inner)]
    if extras and value is False:
        listed = _listed(sorted(extras))
        yield _error(f"Unevaluated properties are not allowed ({listed} unexpected)")
    elif extras:
        listed = f"{_listed(extras)} unevaluated and invalid"
        yield _error(f"Unevaluated properties are not valid under the given schema ({listed})")
