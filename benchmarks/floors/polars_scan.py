"""Polars: a lazy scan with an explicit schema into a Parquet file."""

import json
import os
import sys

if __name__ == "__main__":
    argument = json.loads(sys.argv[1])
    os.environ["POLARS_MAX_THREADS"] = str(argument["threads"])
    import polars as pl

    types = {
        "string": pl.String(),
        "long": pl.Int64(),
        "number": pl.Float64(),
        "boolean": pl.Boolean(),
        "date": pl.Date(),
        "date-time": pl.Datetime("ms", "UTC"),
        "array": pl.List(pl.String()),
    }
    columns = {name: types[kind] for name, kind in argument["columns"].items()}
    schema = pl.Schema({"event": pl.String(), "properties": pl.Struct(columns)})
    events = pl.scan_ndjson(argument["sources"], schema=schema)
    flat = events.select("event", pl.col("properties").struct.unnest())
    flat.sink_parquet(argument["target"], compression="zstd")
    print(
        json.dumps({"rows": pl.scan_parquet(argument["target"]).select(pl.len()).collect().item()})
    )
