"""Rows to a table: the Delta table and its log, positions, Parquet files, duplicates, rejects.

It knows no request and no mapping. A module each, from the bottom up:

    layout                    every path below the root
    storage                   where the bytes are: what a storage does, and the local disk
    delta_log, log_entries    the Delta log as files
    compatibility             whether this program can write to a table
    day_changes               which days other programs changed
    data_files, table         the table as it is now
    commit_intent             the description of a commit that began
    commit_cleanup            how it is finished or rolled back; deletion of what it replaced
    old_batches               deletion of old batch folders
    dataset                   lock, stage, commit
    positions, single_days    positions of a flow; projects whose days are not UTC days
    parquet_writer            rows to staged files, with spool, dedup, key_hashes, reject_files
"""
