"""Rows to a table: the Delta table and its log, positions, Parquet files, duplicates, rejects.

`storage` is where its bytes are. It knows no request and no mapping.
"""
