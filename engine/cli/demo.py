"""The whole way in one command: a stand-in for Mixpanel, three days of events, a table."""

import json
import os
from datetime import date
from pathlib import Path

import pyarrow.dataset as arrow_dataset

from engine.catalog.database import Catalog
from engine.cli.console import answer, answering, say
from engine.cli.progress import progress, summary, table
from engine.config import file
from engine.dataset.dataset import Dataset
from engine.model.flow import Connection, Flow, Secret
from engine.model.run_payload import FAILED, envelope
from engine.model.window import each_day
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox, Spec
from engine.sync.backfill import Backfill
from engine.sync.options import Options
from engine.sync.pull import Rules, table_schema

DAYS = list(each_day(date(2024, 1, 1), date(2024, 1, 3)))
COLUMNS = ["event_name", "time", "item_name", "item_price", "distinct_id"]

QUERY = """
Query it with anything that reads Parquet or Delta, for example:

  duckdb -c "SELECT _extconndev.event_name, count(*)
             FROM '{root}/event_date=*/*.parquet' GROUP BY ALL"
  python -c "import polars; print(polars.scan_delta('{root}').head().collect())"
"""


def run(root: Path) -> int:
    """Fill `root` from the sandbox and show what came; the exit status."""
    rules = Rules(file.find("mapping", "mixpanel-events"), file.find("schema", "mixpanel-events"))
    with Sandbox(Spec(events_per_day=10_000, reject_percent=0.1)) as sandbox:
        say(f"Sandbox, a stand-in for Mixpanel with made-up events, at {sandbox.url}")
        connection = Connection(sandbox.url, USERNAME, Secret(PASSWORD), PROJECT_ID)
        flow = Flow("demo", connection, str(root))
        dataset = Dataset(root, table_schema(rules), flow.source)
        with Catalog(file.home(os.environ)) as catalog, progress(len(DAYS)) as tell:
            # A second demo shows that again changes nothing (P4).
            items = Backfill(flow, rules, dataset, catalog, Options(force=True), tell).run(DAYS)
    answer("The last run, as `mixpanel-etl runs --json` shows it:")
    answer(json.dumps(envelope(items[-1:]), indent=2))
    answer(summary(items, len(DAYS), str(root)))
    if any(item["metrics"]["statusSummary"]["status"] == FAILED for item in items):
        return 1
    rows = arrow_dataset.dataset(_files(root)).head(10).to_pylist()
    with answering():
        table(COLUMNS, ([row["_extconndev"][name] for name in COLUMNS] for row in rows))
    answer(QUERY.format(root=root))
    return 0


def _files(root: Path) -> list[str]:
    return [str(path) for path in sorted(root.glob("event_date=*/*.parquet"))]
