"""DuckDB: one COPY with explicit columns. Nothing is mapped, checked or committed."""

import json
import sys

import duckdb

TYPES = {
    "string": "VARCHAR",
    "long": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "date-time": "TIMESTAMP",
    "array": "VARCHAR[]",
}

if __name__ == "__main__":
    argument = json.loads(sys.argv[1])
    columns = ", ".join(f'"{name}" {TYPES[kind]}' for name, kind in argument["columns"].items())
    duckdb.execute(f"SET threads = {argument['threads']}")
    made = duckdb.execute(
        f"""COPY (
            SELECT event, properties.*
            FROM read_ndjson({argument["sources"]},
                columns = {{event: 'VARCHAR', properties: 'STRUCT({columns})'}})
        ) TO '{argument["target"]}' (FORMAT parquet, COMPRESSION zstd)"""
    ).fetchall()
    print(json.dumps({"rows": made[0][0]}))
