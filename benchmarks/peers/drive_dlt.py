"""dlt with a Pydantic model: the only peer that validates. Rows that do not fit are discarded.

The columns that the model does not name are kept, as the program keeps them in `unmapped`.
"""

import gzip
import json
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, ClassVar
from urllib.request import Request, urlopen

import dlt
from given import FOLDER, GIVEN, done, export_address
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
REQUIRED = ("event", "time")  # as the program's schema has it
PAGE = 5_000


class Flat(BaseModel):
    """One event with its properties beside its name."""

    model_config = ConfigDict(extra="allow")
    dlt_config: ClassVar[dict[str, bool]] = {"skip_nested_types": False}


def name(of: str) -> str:
    """A property's name as dlt would normalize it, so that the model and the rows agree."""
    return of.replace("$", "x_")


def model() -> Any:
    """The model of the columns that are given."""
    kinds = {"event": "string"} | GIVEN["columns"]
    fields: dict[str, Any] = {
        name(of): (TYPES[kind], ...) if of in REQUIRED else (TYPES[kind] | None, None)
        for of, kind in kinds.items()
    }
    return create_model("Event", __base__=Flat, **fields)


def pages() -> Iterator[list[dict[str, Any]]]:
    """The events, many at a time."""
    headers = {"Accept-Encoding": "gzip", "Authorization": GIVEN["authorization"]}
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
