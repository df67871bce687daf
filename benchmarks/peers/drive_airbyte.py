"""Airbyte's source: messages into a file. There is no destination, so no Parquet is written."""

import json

from driver import FOLDER, INPUT, done, lines_with, output_into, redirect

CONFIG = {
    "credentials": {
        "option_title": "Service Account",
        "username": INPUT["username"],
        "secret": INPUT["password"],
        "project_id": INPUT["project_id"],
    },
    "region": "US",
    "project_timezone": "UTC",
    "select_properties_by_default": True,
    "start_date": f"{INPUT['first']}T00:00:00Z",
    "end_date": f"{INPUT['last']}T00:00:00Z",
    "attribution_window": 0,
    "export_lookback_window": 0,
    "date_window_size": 1,
    "page_size": 1000,
    "num_workers": 3,
    "reqs_per_hour_limit": 0,  # otherwise it sleeps a minute after each request
}
CATALOG = {
    "streams": [
        {
            "stream": {
                "name": "export",
                "json_schema": {"type": "object", "additionalProperties": True, "properties": {}},
                "supported_sync_modes": ["full_refresh", "incremental"],
            },
            "sync_mode": "incremental",
            "cursor_field": ["time"],
            "destination_sync_mode": "append",
        }
    ]
}

if __name__ == "__main__":
    redirect()
    from airbyte_cdk.entrypoint import launch
    from source_mixpanel.run import _get_source

    config, catalog = FOLDER / "config.json", FOLDER / "catalog.json"
    config.write_text(json.dumps(CONFIG), "utf-8")
    catalog.write_text(json.dumps(CATALOG), "utf-8")
    words = ["read", "--config", str(config), "--catalog", str(catalog)]
    path = FOLDER / "messages.jsonl"
    with output_into(path):
        launch(_get_source(words), words)
    done(lines_with(path, b'"type":"RECORD"'))
