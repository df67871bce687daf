"""`demo`: pull three days from the sandbox into ./demo-data, without a Mixpanel account."""

import json
import os
from datetime import date
from pathlib import Path

from engine.cli.console import print_message, print_result
from engine.cli.lazy_imports import lazy_imports
from engine.config import environment
from engine.config.shipped_files import find
from engine.control.run_payload import envelope
from engine.dataset import layout
from engine.model.flow import Connection, Flow, Secret
from engine.model.run_record import FAILED
from engine.model.window import each_day

with lazy_imports():
    from engine import sandbox
    from engine.catalog import database
    from engine.cli import progress
    from engine.dataset import dataset as delta_dataset
    from engine.sync import backfill, pull
    from engine.sync import options as sync_options

DAYS = list(each_day(date(2024, 1, 1), date(2024, 1, 3)))
COLUMNS = ["event_name", "time", "item_name", "item_price", "distinct_id"]
ROOT = Path("demo-data")

QUERY = """
Query it with anything that reads Parquet or Delta, for example:

  duckdb -c "SELECT _extconndev.event_name, count(*)
             FROM '{files}' GROUP BY ALL"
  python -c "import polars; print(polars.scan_delta('{root}').head().collect())"
"""


def demo() -> int:
    """Try the program without an account: pull three days into ./demo-data."""
    import pyarrow.dataset as arrow_dataset  # only modules of the engine can be imported lazily

    mapping, schema = (find(kind, "mixpanel-events") for kind in ("mapping", "schema"))
    rules = pull.Rules(mapping, schema)
    with sandbox.Sandbox(sandbox.Spec(events_per_day=10_000, reject_percent=0.1)) as server:
        print_message(f"Sandbox, a stand-in for Mixpanel with made-up events, at {server.url}")
        password = Secret(sandbox.PASSWORD)
        connection = Connection(server.url, sandbox.USERNAME, password, sandbox.PROJECT_ID)
        flow = Flow("demo", connection, str(ROOT))
        dataset = delta_dataset.Dataset(ROOT, pull.table_schema(rules), flow.source)
        bar = progress.progress(len(DAYS))
        with database.Catalog(environment.home(os.environ)) as catalog, bar as callback:
            # P4: a second demo pulls every day again and changes nothing.
            settings = sync_options.Options(force=True)
            records = backfill.Backfill(flow, rules, dataset, catalog, settings, callback).run(DAYS)
    print_result("The last run, as `mixpanel-etl runs --json` shows it:")
    print_result(json.dumps(envelope(records[-1:]), indent=2))
    print_result(progress.summary(records, len(DAYS), str(ROOT)))
    if any(record.status == FAILED for record in records):
        return 1
    files = [str(path) for path in sorted(ROOT.glob(layout.DATA_FILES))]
    rows = arrow_dataset.dataset(files).head(10).to_pylist()
    progress.table(COLUMNS, ([row["_extconndev"][name] for name in COLUMNS] for row in rows))
    print_result(QUERY.format(root=ROOT, files=ROOT / layout.DATA_FILES))
    return 0
