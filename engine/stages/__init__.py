"""A record's way, a file a step: export, lines, mapping, columns, check, writer."""
