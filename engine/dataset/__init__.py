"""Rows to a table: the Delta table and its log, positions, Parquet files, duplicates, rejects.

It knows no request and no mapping. A module each, from the bottom up:

    layout                    every path below the root
    storage                   where the bytes are: what a storage does, and the local disk
    delta_log, log_entries    the Delta log as files
    compatibility             whether this program can write to a table
    day_changes               what other programs changed of a day
    data_files, table         the table as it is now
    intent, recovery          commits that were interrupted
    batch_cleanup             old folders of batches
    dataset                   lock, stage, commit
    positions, single_days    what a commit notes of a flow, and of days that are not UTC days
    parquet_writer            rows to staged files, with spool, dedup, key_hashes, reject_files
"""
