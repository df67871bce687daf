"""One SQLite file: run history, request ledger, resources, totals. The only importer of sqlite3.

How far a flow is stands in its table, and never here. What an earlier version stored is read in
`version_0_1` and brought to the tables of today in `schema`.
"""
