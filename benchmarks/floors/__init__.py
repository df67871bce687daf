"""Ways from the same bytes to Parquet that promise nothing: how fast it could be.

Each is a program that takes one JSON argument: `sources` (gzip files), `target` (a Parquet file),
`columns` (a property's name, its type) and `threads`. It prints the number of rows as JSON. They
read local files, so the download costs them nothing.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.process import Spent, spend
from benchmarks.rounds import Contender
from benchmarks.shapes import Columns

FLOORS = {"DuckDB COPY": "duckdb_copy", "Polars scan_ndjson": "polars_scan",
          "orjson + pyarrow": "orjson_arrow"}  # fmt: skip
DUCKDB = "DuckDB COPY"


def floor(
    name: str, sources: Sequence[Path], columns: Columns, lines: int, threads: int = 2
) -> Contender:
    """Return the floor of that name as a contender that reads `lines` from `sources`."""
    script = Path(__file__).with_name(f"{FLOORS[name]}.py")

    def run(folder: Path) -> tuple[Spent, int]:
        argument = {
            "sources": [str(path) for path in sources],
            "target": str(folder / "x.parquet"),
            "columns": columns,
            "threads": threads,
        }
        spent = spend([sys.executable, str(script), json.dumps(argument)])
        return spent, int(json.loads(spent.said)["rows"])

    return Contender(name, lines, run)
