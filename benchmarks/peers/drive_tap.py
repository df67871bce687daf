"""The Singer tap: its stream of events into a file. Without a target, no Parquet is written."""

from driver import FOLDER, INPUT, done, lines_with, output_into, redirect
from singer import metadata
from tap_mixpanel.client import MixpanelClient
from tap_mixpanel.discover import discover
from tap_mixpanel.sync import sync

CONFIG = {
    "api_secret": f"{INPUT['username']}:{INPUT['password']}",
    "project_timezone": "UTC",
    "attribution_window": "1",  # with 0 and a single day, it requests nothing
    "date_window_size": "1",
    "start_date": f"{INPUT['first']}T00:00:00Z",
    "end_date": f"{INPUT['last']}T23:59:59Z",
    "select_properties_by_default": "true",
    "user_agent": "benchmarks",
}

if __name__ == "__main__":
    redirect()
    path = FOLDER / "singer.jsonl"
    with (
        output_into(path),
        MixpanelClient(CONFIG["api_secret"], "mixpanel.com", 300, "benchmarks") as client,
    ):
        client.__api_domain = "mixpanel.com"  # as in the tap's `main`
        catalog = discover(client, "true")
        for stream in catalog.streams:
            chosen = metadata.to_map(stream.metadata)
            for place in chosen:  # the stream itself, and each of its properties
                metadata.write(chosen, place, "selected", stream.stream == "export")
            stream.metadata = metadata.to_list(chosen)
        sync(client, CONFIG, catalog, {}, CONFIG["start_date"])
    done(lines_with(path, b'"type": "RECORD"'))
