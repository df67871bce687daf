"""One SQLite file: run history, request ledger, resources, totals. The only importer of sqlite3.

The positions of a flow are in its table, and never here. `version_0_1` reads what an earlier
version stored, and `schema` migrates it.
"""
