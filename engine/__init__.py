"""Copies the raw events of a Mixpanel project into a Parquet table, and keeps the copy true.

The nouns are `window`, `flow` (Connection, Flow, Run), `batch` (Batch, Reject, Tally), `schema` and
`rules`. A record's way is `stages`: export (`answer`, `proxies`), lines, mapping, columns, check,
writer (`direct` is a short way past three of them, `twin` a second process that takes it), called
one after the other by `run.pull`. `exact` tells what fast decoders would lose, `moments` what a
`time` means, `uncast` and `unfound` what casts refused and which rules found nothing, `referee`,
`patterns` and `loops` how a schema is held against values in linear time. `dataset` owns the table
(`intent` is a commit on its way, `contents` what it holds against what it should, `features` what
it may ask of those who write to it, `batch_folders` what batches leave beside it, `single_days`
what it remembers of a project whose days are not UTC days, which `borders` tells from rows),
`catalog` the history of runs (`history` while that cannot be written), `report` the shape in which
it is told, `plan` every decision about when and how much, `splitting` what failures say of sizes,
`judge` whether a day has too many rejects, `marks` what a table notes of its days, `empty` what is
said of those without events. `runs` brings windows into the table: those of a range of days from
`backfill`, those that are due of a flow from `upkeep`, which `daemon` calls at every `tick`
(`turns`: whose it is); `rejects` brings what was rejected, once it passes. `api` is the control
plane, in the daemon: what clients make there are `resources`, their secrets in a `vault`; `bodies`
checks what they say, `declared` makes flows of them, and `applied` makes them of a configuration
file (`config`, read by `keys`). `cli`, `cli_flows` and `cli_rejects` are the commands (`console`
how they speak, `look` and `status` what they ask), `sandbox` the stand-in for Mixpanel that only
the demo, its own command and the tests start.
"""

import os

# Nothing here multiplies matrices, for which numpy starts threads: 50 ms of each process.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
