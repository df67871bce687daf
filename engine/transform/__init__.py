"""Bytes to rows: decoding, types, casts, the check against a schema, and what is inferred.

Pure but for the second process; it knows no request, no table and no run.
"""
