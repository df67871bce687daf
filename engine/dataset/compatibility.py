"""Whether this program can rightly write to a Delta table: its schema, source and features.

Pure: it gets what the log says of the table.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from engine.dataset.log_entries import State
from engine.errors import InputError
from engine.model.flow import source_in_words

SOURCE = "mixpanel-etl.source"  # the table property that says whose events it holds
COLUMNS = "mixpanel-etl.columns"  # the table property that names the columns it was made with

# Features without effect on a writer of whole files as long as no property or column uses them.
HARMLESS = {
    "appendOnly", "changeDataFeed", "checkConstraints", "columnMapping", "deletionVectors",
    "generatedColumns", "identityColumns", "invariants", "inCommitTimestamp", "timestampNtz",
    "v2Checkpoint", "vacuumProtocolCheck",
}  # fmt: skip
UNSET = "ALTER TABLE … UNSET TBLPROPERTIES ('{}')"
SWITCHES = {
    "delta.appendOnly": "is append-only, and this program replaces days",
    "delta.enableChangeDataFeed": "keeps a change data feed, which this program does not write",
    "delta.enableRowTracking": "tracks rows, which this program does not do",
    "delta.enableInCommitTimestamps": "has in-commit timestamps, which this program does not write",
    "delta.enableIcebergCompatV1": "is read as an Iceberg table, which this program does not write",
    "delta.enableIcebergCompatV2": "is read as an Iceberg table, which this program does not write",
}
CONSTRAINT, MAPPING_MODE = "delta.constraints.", "delta.columnMapping.mode"
OF_COLUMNS = {
    "delta.generationExpression": "is a generated column",
    "delta.identity.start": "is an identity column",
    "delta.invariants": "has an invariant",
}


def check(
    name: object,
    state: State,
    schema: Mapping[str, Any],
    source: str | None,
    *,
    fitted: Mapping[str, Any] | None,
    has_vectors: Callable[[], bool],
) -> None:
    """Raise InputError unless the table `name` can take files of `schema` and holds `source`.

    schema       the Delta schema that is wanted
    source       the source that is wanted, as the table property SOURCE holds it
    fitted       the metadata with which the table has passed this check before, if it has
    has_vectors  reads whether a file of the table has a deletion vector
    """
    has = json.loads(state.metadata["schemaString"])
    properties = state.metadata["configuration"]
    if wrong := _schema_differences(has, schema, properties, fitted):
        raise InputError(
            f"The table {name} has another schema: {'; '.join(wrong)}. "
            "Use the schema it was made with, or another --dataset."
        )
    made_for = properties.get(SOURCE)
    if made_for is not None and made_for != source:
        raise InputError(
            f"The table {name} holds other events: it was made for {_in_words(made_for)}, "
            f"and what is asked for now is {_in_words(source)}. One table mirrors one "
            "source: use another --dataset."
        )
    why = [*_unknown(state.protocol), *_switched_on(properties), *_column_rules(has)]
    if "deletionVectors" in _features(state.protocol) and has_vectors():
        why.append(
            "rows of its files are marked as deleted by deletion vectors, which this program "
            "does not write: ALTER TABLE … SET TBLPROPERTIES "
            "('delta.enableDeletionVectors' = false), then REORG TABLE … APPLY (PURGE)"
        )
    if why:
        raise InputError(
            f"The table {name} cannot be written rightly: {'; '.join(why)}. "
            "Change the table back, or use another --dataset."
        )


def columns_property(schema: Mapping[str, Any]) -> str:
    """Return the value of the table property COLUMNS for a table with the Delta schema `schema`."""
    return json.dumps([*_types(schema)])


def _schema_differences(
    has: Mapping[str, Any],
    wants: Mapping[str, Any],
    properties: Mapping[str, Any],
    fitted: Mapping[str, Any] | None,
) -> list[str]:
    """Return how the schemas differ, apart from columns that another program added.

    Those may be null, and are in our rows.
    """
    made_with = properties.get(COLUMNS)
    if made_with is None and fitted is not None:  # an early version of this program made the table
        made_with = fitted["configuration"].get(COLUMNS) or fitted["schemaString"]
    with suppress(ValueError, TypeError, KeyError):
        known = json.loads(made_with) if made_with else None
        if isinstance(known, dict):
            known = [*_types(known)]
        if known is not None:
            return _differences(has, wants, set(known))
    return _differences(has, wants)


def _in_words(source: str | None) -> str:
    """Return a table property SOURCE in words; another program may have put anything there."""
    try:
        return source_in_words(json.loads(source or ""))
    except (ValueError, RecursionError):
        return source_in_words(None)


def _features(protocol: Mapping[str, Any]) -> set[str]:
    return {*(protocol.get("readerFeatures") or ()), *(protocol.get("writerFeatures") or ())}


def _unknown(protocol: Mapping[str, Any]) -> Iterator[str]:
    versions = (protocol.get("minReaderVersion", 1), protocol.get("minWriterVersion", 2))
    if versions[0] > 3 or versions[1] > 7:
        yield "it has version {} of the protocol for readers and {} for writers".format(*versions)
    for name in sorted(_features(protocol) - HARMLESS):
        yield f"it has the table feature {name}, which this program does not know"


def _switched_on(properties: Mapping[str, Any]) -> Iterator[str]:
    for name, what in SWITCHES.items():
        if str(properties.get(name)).lower() == "true":
            yield f"it {what}: {UNSET.format(name)}"
    for name in properties:
        if name.startswith(CONSTRAINT):
            constraint = name.removeprefix(CONSTRAINT)
            yield (
                f"it has the constraint {constraint}, which this program does not check: "
                f"ALTER TABLE … DROP CONSTRAINT {constraint}"
            )
    if str(properties.get(MAPPING_MODE, "none")).lower() != "none":
        yield "it has column mapping: its files name columns in another way than this program's"


def _column_rules(schema: Mapping[str, Any]) -> Iterator[str]:
    for name, column, _ in _columns(schema):
        for key, what in OF_COLUMNS.items():
            if key in (column.get("metadata") or {}):
                yield f"the column {name} {what}, which this program does not check"


def _columns(
    schema: Mapping[str, Any], prefix: str = "", *, nullable: bool = True
) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Yield each column: its dotted name, itself, whether it and its parents may be null."""
    for column in schema["fields"]:
        name, kind = prefix + column["name"], column["type"]
        may_be_null = nullable and column.get("nullable", True)
        yield name, column, may_be_null
        if isinstance(kind, dict) and kind["type"] == "struct":
            yield from _columns(kind, f"{name}.", nullable=may_be_null)


def _differences(
    has: Mapping[str, Any], wants: Mapping[str, Any], known: set[str] | None = None
) -> list[str]:
    """Return how two Delta schemas differ, a phrase for each column.

    A column of `has` alone that may be null is no difference unless it is among `known`; None
    means that all columns are known.
    """
    old, new = _types(has), _types(wants)
    nullable = {name for name, _, may_be_null in _columns(has) if may_be_null}
    added = set() if known is None else nullable - known
    gone = [name for name in old if name not in new and name not in added]
    changed = [name for name in old if new.get(name, old[name]) != old[name]]
    return [
        *(f"the table has {name} ({old[name]}), the schema has not" for name in gone),
        *(f"the schema has {n} ({new[n]}), the table has not" for n in new if n not in old),
        *(f"{n} is {old[n]} in the table and {new[n]} in the schema" for n in changed),
    ]


def _types(schema: Mapping[str, Any]) -> dict[str, str]:
    """Return the type of every column of a Delta schema, apart from structs, by its dotted name."""
    types = ((name, column["type"]) for name, column, _ in _columns(schema))
    return {
        name: kind if isinstance(kind, str) else json.dumps(kind)
        for name, kind in types
        if isinstance(kind, str) or kind["type"] != "struct"
    }
