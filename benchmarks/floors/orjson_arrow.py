"""A simple script: orjson, one list per column, pyarrow. Nothing is checked."""

import gzip
import json
import sys
from datetime import date, datetime

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

TYPES = {"string": pa.string(), "long": pa.int64(), "number": pa.float64(), "boolean": pa.bool_(),
         "date": pa.date32(), "date-time": pa.timestamp("ms", "UTC"),
         "array": pa.list_(pa.string())}  # fmt: skip
READ = {"date": date.fromisoformat, "date-time": datetime.fromisoformat}

if __name__ == "__main__":
    argument = json.loads(sys.argv[1])
    kinds = argument["columns"]
    fields = [pa.field("event", pa.string()), *(pa.field(n, TYPES[k]) for n, k in kinds.items())]
    schema, rows = pa.schema(fields), 0
    with pq.ParquetWriter(argument["target"], schema, compression="zstd") as writer:
        for source in argument["sources"]:
            with gzip.open(source) as file:
                while block := file.readlines(1 << 20):
                    events = [orjson.loads(line) for line in block]
                    columns = {name: [e["properties"].get(name) for e in events] for name in kinds}
                    for name, kind in kinds.items():
                        if read := READ.get(kind):
                            columns[name] = [v and read(v) for v in columns[name]]
                    columns["event"] = [event["event"] for event in events]
                    writer.write_table(pa.table(columns, schema))
                    rows += len(events)
    print(json.dumps({"rows": rows}))
