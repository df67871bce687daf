"""One SQLite file: run history, request ledger, resources, totals. The only importer of sqlite3.

The truth about the data is never here: it is in the table.
"""
