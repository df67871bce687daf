"""Copy the raw events of a Mixpanel project into a Delta table, and keep the copy exact.

The rooms, lowest first; a room imports only rooms that are listed before it:

    errors, log    the error tree; structured log lines
    model          windows, flows, schedules, retries, batches, run records
    mixpanel       requests, responses, proxies: the only room with a network
    transform      bytes to rows: decode, cast, validate, infer
    mapping        mapping sets and their evaluation
    dataset        rows to a table: commit, log, positions, Parquet, duplicates, rejects
    config         the configuration file and the environment
    catalog        run history, request ledger, resources: one SQLite file
    sync           one flow: `pull` is an event's whole way; `runner` brings windows into the table
    control        the control plane: what clients declare, their calls, the runs payload
    daemon         ticks, turns, one process a tick
    cli            the commands
    sandbox        a stand-in for Mixpanel: the demo, its own command and tests start it
"""

import os

# numpy starts threads for products of matrices, which are not used here: 50 ms a process.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
