"""A backfill against the sandbox, and the rows of a table."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.config.shipped_files import find
from engine.control.run_payload import payload
from engine.dataset.dataset import Dataset
from engine.mixpanel.timeouts import Timeouts
from engine.model.flow import Connection, Flow, Secret
from engine.model.retry import RateLimit, RetryPolicy
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox
from engine.sync.backfill import Backfill
from engine.sync.options import Options
from engine.sync.pull import Rules, table_schema
from engine.sync.run_updates import RunUpdate, Waiting

DAYS = [date(2024, 1, 1), date(2024, 1, 2)]
RULES = Rules(find("mapping", "mixpanel-events"), find("schema", "mixpanel-events"))
QUICK = Options(
    retry_policy=RetryPolicy(
        first=0.01, longest=0.01, pause=0.01, longest_pause=0.01, limited=6, obeyed=0.05
    ),
    rate_limit=RateLimit(per_hour=1000, per_second=1000),
    timeouts=Timeouts(connect=2, first_byte=1, idle=1, total=20),
)


@dataclass
class Pull:
    """A finished backfill: its run items, and the updates that it reported."""

    items: list[dict[str, Any]]
    told: list[RunUpdate] = field(default_factory=list)

    @property
    def statuses(self) -> list[str]:
        return [item["metrics"]["statusSummary"]["status"] for item in self.items]

    @property
    def message(self) -> str:
        errors = self.items[-1]["metrics"]["statusSummary"].get("errors", [{"message": ""}])
        return str(errors[0]["message"])

    @property
    def records(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for item in self.items:
            for name, count in item["metrics"]["recordSummary"].items():
                if isinstance(count, int):
                    total[name] = total.get(name, 0) + count
        return total

    @property
    def waits(self) -> list[str]:
        return [event.why for event in self.told if isinstance(event, Waiting)]


def flow_of(url: str, root: Path, **changes: Any) -> Flow:
    connection = Connection(url, USERNAME, Secret(PASSWORD), PROJECT_ID)
    values: dict[str, Any] = {"name": "events", "connection": connection, "dataset": str(root)}
    return Flow(**values | changes)


def pull(
    url: str,
    root: Path,
    days: Sequence[date] = DAYS,
    options: Options = QUICK,
    tell: Callable[[RunUpdate], None] = lambda _: None,
    home: Path | None = None,
    **changes: Any,
) -> Pull:
    """Backfill `days` from `url` into `root`, with its home beside it."""
    flow = flow_of(url, root, **changes)
    told: list[RunUpdate] = []

    def listen(event: RunUpdate) -> None:
        told.append(event)
        tell(event)

    with Catalog(home or root.parent / "home") as catalog:
        dataset = Dataset(root, table_schema(RULES), flow.source)
        records = Backfill(flow, RULES, dataset, catalog, options, listen).run(days)
    return Pull([payload(record) for record in records], told)


def rows(root: Path) -> list[str]:
    """The table's rows, sorted; the same for a Delta reader and for a plain glob.

    Where there is no table there is no file of one either.
    """
    if not (root / "_delta_log").exists():
        assert not any(root.glob("event_date=*"))
        return []
    by_delta = sorted(
        json.dumps(row, default=str, sort_keys=True)
        for row in DeltaTable(root).to_pyarrow_table().to_pylist()
    )
    if any(root.glob("event_date=*/*.parquet")):
        with duckdb.connect() as connection:
            glob = f"read_parquet('{root}/event_date=*/*.parquet', hive_partitioning=true)"
            fetched = connection.execute(f"SELECT count(*) FROM {glob}").fetchall()
        assert fetched == [(len(by_delta),)]
    else:
        assert by_delta == []
    return by_delta


def undisturbed(sandbox: Sandbox, root: Path, days: Sequence[date] = DAYS) -> list[str]:
    """Return the rows of the table after a backfill without faults."""
    sandbox.reset()
    done = pull(sandbox.url, root, days)
    assert set(done.statuses) == {"success"}
    return rows(root)
