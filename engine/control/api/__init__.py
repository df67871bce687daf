"""The HTTP API of the daemon: Flow Service's calls, and those of Catalog, the Schema Registry,
Conversion, Data Access and Sandbox Management that the tutorial needs.

A route is a few lines on the resources, the planner and the run history.

    server.py             the socket and the thread of the daemon's server
    connection_limits.py  how many connections there may be, and how long each may take
    auth.py               the token check and the Host check
    middleware.py         what every request and response passes: errors, bodies, HEAD, 304
    query_parameters.py   rejects query parameters that a route does not declare
    etag_checks.py        If-Match, If-None-Match and the conditional headers with dates
    app.py                the FastAPI application: all routers, and the error handlers
    openapi.py, forms.py  /openapi.json, and the page /docs

    resource_routes.py    POST, GET, PATCH and DELETE of a kind: connections.py, flows.py
    serializers.py, json_patch.py  a resource as an item of a response; changes of it
    listing.py            Flow Service's lists: limit, count and continuation token
    listing_filter.py, listing_order.py  their `property` and their `orderby`
    catalog_filters.py    filters and orders of the lists of Catalog and the Schema Registry
    fit.py                whether a flow can run
    runs.py, triggers.py, batches.py  list runs, request them, and serve their files
    catalog_batches.py    the same runs as Catalog lists batches
    schema_registry.py    the calls on schemas, classes, field groups and data types
    registry_kinds.py, registry_lists.py  how one of them is shown, and lists of them
    schema_accept.py, schema_checks.py  in which form; which documents can be stored
    descriptors.py, registry_reports.py  what is said of fields; numbers, samples, exports
    explore.py, specs.py, datasets.py, mapping_sets.py, sandboxes.py
                          the other calls
    health.py             /healthz, /readyz, /metrics

    app_state.py          what all routes share
    password_leaks.py     refuses texts that hold a password
    problems.py           errors as Flow Service's error bodies
"""
