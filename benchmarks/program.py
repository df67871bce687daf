"""The program as a contender: the whole command into a new table, with everything on."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.process import ROOT, Failed, Spent, spend
from benchmarks.server import FIRST
from benchmarks.shapes import Columns, documents
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME

ENVIRONMENT = {"MIXPANEL_PASSWORD": PASSWORD}


@dataclass(frozen=True, slots=True)
class Program:
    """A backfill of the days from `first` to `last` from the sandbox at `url`.

    `more` are properties that get a rule and a column, `expressions` columns that are computed;
    `watch` samples the memory.
    """

    url: str
    first: str = FIRST
    last: str = FIRST
    unmapped: str = "keep"
    more: Columns = field(default_factory=dict)
    expressions: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    watch: bool = False

    def run(self, folder: Path) -> tuple[Spent, int]:
        """Pull the days; return the cost and the number of lines in the run records."""
        days = ["--from-date", self.first, "--to-date", self.last]
        words = ["backfill", "--config", str(self.configured(folder)), *days, "--json"]
        spent = spend(command(*words, *self.options), ENVIRONMENT, watch=self.watch)
        try:
            found = [item["metrics"]["recordSummary"] for item in json.loads(spent.said)["items"]]
            return spent, sum(record["inputRecordCount"] for record in found)
        except (ValueError, KeyError, TypeError) as error:
            raise Failed(f"backfill --json did not print run records ({error!r})") from error

    def configured(self, folder: Path) -> Path:
        """Write a configuration, a mapping set and a schema to `folder`; return the first path."""
        names = "mapping.json", "schema.json"
        for name, document in zip(names, documents(self.more, self.expressions), strict=True):
            (folder / name).write_text(json.dumps(document), "utf-8")
        mapping, schema = (json.dumps(str(folder / name)) for name in names)
        path = folder / "flows.toml"
        path.write_text(
            f"""home = {json.dumps(str(folder / "home"))}
[connections.sandbox]
host = "{self.url}"
username = "{USERNAME}"
password = {{ env = "MIXPANEL_PASSWORD" }}
project_id = {PROJECT_ID}
[flows.events]
connection = "sandbox"
dataset = {json.dumps(str(folder / "table"))}
mapping = {mapping}
schema = {schema}
windows = "day"
unmapped = "{self.unmapped}"
partial_ingestion_percent = 100
""",
            "utf-8",
        )
        return path


def command(*words: str) -> list[str]:
    """Return a command line of the program in this checkout."""
    assert (ROOT / "engine").is_dir()
    return [sys.executable, "-m", "engine", *words]
