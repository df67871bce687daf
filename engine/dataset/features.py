"""What a Delta table asks of those who write to it, and which of that this program cannot do.

Pure: it is handed what the log says of the table.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Features that change nothing for a writer of whole files while no property or column uses them.
HARMLESS = {
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "columnMapping",
    "deletionVectors",
    "generatedColumns",
    "identityColumns",
    "invariants",
    "inCommitTimestamp",
    "timestampNtz",
    "v2Checkpoint",
    "vacuumProtocolCheck",
}
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


def obstacles(
    protocol: Mapping[str, Any], properties: Mapping[str, Any], schema: Mapping[str, Any]
) -> list[str]:
    """Why files cannot be added to and removed from such a table rightly; a phrase a reason."""
    return [
        *_unknown(protocol),
        *_switched_on(properties),
        *(
            f"the column {name} {what}, which this program does not check"
            for name, metadata in _columns(schema)
            for key, what in OF_COLUMNS.items()
            if key in metadata
        ),
    ]


def may_have_vectors(protocol: Mapping[str, Any]) -> bool:
    """Whether rows of a file can be marked as deleted beside it."""
    return "deletionVectors" in _features(protocol)


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


def _columns(
    schema: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every column, nested ones with their dotted names, and its metadata."""
    fields: Sequence[Mapping[str, Any]] = schema["fields"]
    for column in fields:
        name, kind = prefix + column["name"], column["type"]
        yield name, column.get("metadata") or {}
        if isinstance(kind, dict) and kind.get("type") == "struct":
            yield from _columns(kind, f"{name}.")
