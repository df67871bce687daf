"""The program itself as a contender: the whole command into a new table, everything on."""

import json
import sys
from collections.abc import Sequence
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

    `more` are properties that get a rule and a column besides the tutorial's; `watch`: its memory.
    """

    url: str
    first: str = FIRST
    last: str = FIRST
    unmapped: str = "keep"
    more: Columns = field(default_factory=dict)
    options: Sequence[str] = ()
    watch: bool = False

    def run(self, folder: Path) -> tuple[Spent, int]:
        """Pull the days; what it took, and the lines that its run records account for."""
        days = ["--from-date", self.first, "--to-date", self.last]
        words = ["backfill", "--config", str(self.configured(folder)), *days, "--json"]
        spent = spend(command(*words, *self.options), ENVIRONMENT, watch=self.watch)
        try:
            found = [item["metrics"]["recordSummary"] for item in json.loads(spent.said)["items"]]
            return spent, sum(record["inputRecordCount"] for record in found)
        except (ValueError, KeyError, TypeError) as error:
            raise Failed(f"backfill --json did not print run records ({error!r})") from error

    def configured(self, folder: Path) -> Path:
        """A configuration for it in `folder`, with the mapping set and the schema beside it."""
        names = "mapping.json", "schema.json"
        for name, document in zip(names, documents(self.more), strict=True):
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
    """A command line of the program in this checkout: commands run in its folder."""
    assert (ROOT / "engine").is_dir()
    return [sys.executable, "-m", "engine", *words]
