"""mixpanel-headless: its iterator of events, written to Parquet with pyarrow, as its users do."""

import os
from itertools import islice

from driver import FOLDER, INPUT, done

os.environ |= {
    "MP_API_BASE_URL": INPUT["url"],
    "MP_USERNAME": INPUT["username"],
    "MP_SECRET": INPUT["password"],
    "MP_PROJECT_ID": str(INPUT["project_id"]),
    "MP_REGION": "us",
}

import pyarrow as pa
import pyarrow.parquet as pq
from mixpanel_headless import Workspace

PAGE = 10_000
TYPES = {
    "string": pa.string(),
    "long": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.string(),
    "date-time": pa.string(),
    "array": pa.list_(pa.string()),
}

if __name__ == "__main__":
    workspace = Workspace()
    columns = [pa.field(name, TYPES[kind]) for name, kind in INPUT["columns"].items()]
    schema, rows = pa.schema([pa.field("event", pa.string()), *columns]), 0
    events = workspace.stream_events(from_date=INPUT["first"], to_date=INPUT["last"], raw=True)
    with pq.ParquetWriter(FOLDER / "x.parquet", schema, compression="zstd") as writer:
        while page := list(islice(events, PAGE)):
            flat = [{"event": record["event"]} | record["properties"] for record in page]
            writer.write_table(pa.Table.from_pylist(flat, schema))
            rows += len(page)
    workspace.close()
    done(rows)
