"""How fast, and in how much memory: the whole command, beside DuckDB on the same bytes."""
