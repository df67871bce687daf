"""dlt with a Pydantic model: the only peer that validates. Rows that do not fit are discarded.

Columns that the model does not name are stored, as the program stores them in `unmapped`.
"""

import gzip
import json
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, ClassVar
from urllib.request import Request, urlopen

import dlt
from driver import FOLDER, INPUT, done, export_address
from pydantic import BaseModel, ConfigDict, create_model

TYPES: dict[str, Any] = {
    "string": str,
    "long": int,
    "number": float,
    "boolean": bool,
    "date": date,
    "date-time": datetime,
    "array": list[str],
}
REQUIRED = ("event", "time")  # as in the program's schema
PAGE = 5_000


class Flat(BaseModel):
    """Return an event with its properties and its name on one level."""

    model_config = ConfigDict(extra="allow")
    dlt_config: ClassVar[dict[str, bool]] = {"skip_nested_types": False}


def name(of: str) -> str:
    """Return the name of a property as dlt normalizes it, so that model and rows agree."""
    return of.replace("$", "x_")


def model() -> Any:
    """Return the Pydantic model of the columns."""
    kinds = {"event": "string"} | INPUT["columns"]
    fields: dict[str, Any] = {
        name(of): (TYPES[kind], ...) if of in REQUIRED else (TYPES[kind] | None, None)
        for of, kind in kinds.items()
    }
    return create_model("Event", __base__=Flat, **fields)


def pages() -> Iterator[list[dict[str, Any]]]:
    """Yield the events in lists."""
    headers = {"Accept-Encoding": "gzip", "Authorization": INPUT["authorization"]}
    with urlopen(Request(export_address(), headers=headers)) as answer, gzip.open(answer) as lines:
        page = []
        for line in lines:
            record = json.loads(line)
            flat = {name(of): value for of, value in record["properties"].items()}
            page.append({"event": record["event"]} | flat)
            if len(page) == PAGE:
                yield page
                page = []
        yield page


if __name__ == "__main__":
    place = dlt.destinations.filesystem(str(FOLDER / "lake"))
    pipeline = dlt.pipeline("events", destination=place, pipelines_dir=str(FOLDER / "pipelines"))
    contract = {"data_type": "discard_row"}
    events = dlt.resource(pages, name="events", columns=model(), schema_contract=contract)
    pipeline.run(events, loader_file_format="parquet")
    done(pipeline.last_trace.last_normalize_info.row_counts["events"])
