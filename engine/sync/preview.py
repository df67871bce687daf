"""The rows that a run would make of a few records, as Data Prep's preview shows them. No I/O.

It runs the stages of a run, a record at a time, so that each problem belongs to its record.
"""

from collections.abc import Iterable
from datetime import date
from typing import Any

from engine.errors import InputError
from engine.mapping.evaluate import MappingSet
from engine.mapping.expression.frame import Failed
from engine.mapping.failed_casts import Uncast
from engine.model.batch import Batch
from engine.sync.pull import Rules
from engine.transform import decode
from engine.transform.casts import cast
from engine.transform.columns import Columns
from engine.transform.schema import Schema
from engine.transform.validate import Checker, instance

Json = dict[str, Any]
_DAYS = (date.min, date.max)  # of no day in particular
MOST_WORK = 30_000_000  # units that expressions may take for all records of a preview


def preview(rules: Rules, records: Iterable[bytes], now: int = 0) -> list[Json]:
    """Return for each record, a JSON text, its row in the schema's terms and what is missing of it.

    `data` is None where a run would reject the record; `errors` is None where there are none.
    `now` is what the expression now() gives, in ms since the epoch. Raise InputError if the
    expressions take more than MOST_WORK units of work for all records.
    """
    schema, compiled = rules.compile()
    mapping = compiled.for_run(now, "preview")
    checker = Checker(schema, Uncast(schema, mapping))
    rows = []
    for record in records:
        rows.append(_row(schema, mapping, checker, record))
        if mapping.work > MOST_WORK:
            raise InputError(
                f"The expressions take more than {MOST_WORK:,} units of work for the first "
                f"{len(rows)} records: preview fewer or shorter records."
            )
    return rows


def _row(schema: Schema, mapping: MappingSet, checker: Checker, record: bytes) -> Json:
    errors: list[Json] = []

    def lost(batch: Batch, row: int, column: int) -> None:
        """Note an error where a run would leave a value out because its column cannot hold it."""
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
            invalid = [
                {"destination": place.strip("#/").replace("/", "."), "exception": text}
                for place, text in found or [("", reject.message)]
            ]
            places = {each["destination"] for each in invalid}
            errors = [each for each in errors if each["destination"] not in places] + invalid
    return {"data": data, "errors": errors or None}
