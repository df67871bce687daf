"""One flow: `pull` is an event's whole way; `runner` brings the windows of a source into the table.

`backfill`, `incremental` and `replay` are the sources of windows; `executors` is where pulls run.
"""
