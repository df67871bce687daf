"""What a run would make of a few records, in the words of Data Prep's preview. No I/O.

It is a run's own stages, a record at a time, so that what is wrong belongs to its record.
"""

from collections.abc import Iterable
from datetime import date
from typing import Any

from engine.mapping.evaluate import MappingSet
from engine.mapping.expression.frame import Failed
from engine.mapping.failed_casts import Uncast
from engine.model.batch import Batch
from engine.sync.pull import Rules
from engine.transform import decode
from engine.transform.columns import Columns, cast
from engine.transform.schema import Schema
from engine.transform.validate import Checker, instance

Json = dict[str, Any]
_DAYS = (date.min, date.max)  # of no day in particular


def preview(rules: Rules, records: Iterable[bytes]) -> list[Json]:
    """Of each record, a JSON text, the row in the schema's terms, and why it is not all there.

    `data` is None where a run would reject the record; `errors` is None where there are none.
    """
    schema, mapping = rules.compile()
    checker = Checker(schema, Uncast(schema, mapping))
    return [_row(schema, mapping, checker, record) for record in records]


def _row(schema: Schema, mapping: MappingSet, checker: Checker, record: bytes) -> Json:
    errors: list[Json] = []

    def lost(batch: Batch, row: int, column: int) -> None:
        """Where a run restores what a column could not hold, if that is a value it could not."""
        path = mapping.destinations[column]
        field = schema.find(path)
        failed: list[int] = []
        assert field
        cast(field, batch.columns[column][row], failed)
        value = batch.columns[column][row]
        if isinstance(value, Failed):
            errors.append({"destination": ".".join(path), "exception": value.reason})
        elif any(failed):
            what = f"a value of it cannot be cast to {field.type}; it is left out"
            errors.append({"destination": ".".join(path), "exception": what})

    columns = Columns(schema, mapping.destinations, lost, days=_DAYS, keep_unmapped=True)
    line = record.replace(b"\r", b" ").replace(b"\n", b" ")  # in JSON, mere white space
    data = None
    for batch in decode.read([line], whole=True):
        if batch.lines:
            mapping.apply(batch)
            columns.build(batch)
            checker.check(batch)
        if batch.lines:
            assert batch.table
            fields = batch.table.select([field.name for field in schema.root.fields])
            data = instance(schema.root, fields.to_pylist()[0]) or {}
        for reject in batch.rejects:
            found = [(v["pointerToViolation"], v["message"]) for v in reject.violations]
            told = [
                {"destination": place.strip("#/").replace("/", "."), "exception": text}
                for place, text in found or [("", reject.message)]
            ]
            places = {each["destination"] for each in told}
            errors = [each for each in errors if each["destination"] not in places] + told
    return {"data": data, "errors": errors or None}
