"""The HTTP API of the daemon: Flow Service's calls, and those of Catalog, the Schema Registry,
Conversion, Data Access and Sandbox Management that the tutorial needs.

A request passes server, connection_limits, auth, middleware and query_parameters; app.py lists the
modules that have the routes, and their paths.
"""
