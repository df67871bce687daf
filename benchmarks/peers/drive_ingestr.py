"""ingestr: its command into a DuckDB file. It writes no Parquet, and merges on `distinct_id`."""

import os
import sys
from urllib.parse import urlencode

from driver import FOLDER, INPUT, done, redirect

if __name__ == "__main__":
    os.environ["INGESTR_DISABLE_TELEMETRY"] = "true"
    redirect()
    import duckdb
    from ingestr.main import app

    account = {
        "username": INPUT["username"],
        "password": INPUT["password"],
        "project_id": INPUT["project_id"],
        "server": "us",
    }
    path = FOLDER / "x.duckdb"
    words = [
        *("ingest", "--yes", "--progress", "log"),
        *("--source-uri", f"mixpanel://?{urlencode(account)}", "--source-table", "events"),
        *("--dest-uri", f"duckdb:///{path}", "--dest-table", "main.events"),
        *("--interval-start", INPUT["first"], "--interval-end", f"{INPUT['last']}T23:59:59"),
    ]
    os.chdir(FOLDER)
    app(words, standalone_mode=False)
    sys.stdout.flush()
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.execute("SELECT count(*) FROM main.events").fetchall()
    done(found[0][0])
