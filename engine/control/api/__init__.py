"""The control plane: Flow Service's calls, answered by the daemon. It decides nothing of its own:
each route is a few lines on the resources, the planner and the history of runs.

    server.py       the daemon's socket
    wire.py         its connections: how many, and how long each may take
    guard.py        who may call
    edge.py         what every request and answer meets
    parameters.py, preconditions.py  which parameters a route has; If-Match and the like
    app.py          the routes together
    docs.py, forms.py  /openapi.json, and its page

    collection.py   POST, GET, PATCH, DELETE of a kind of resource: connections.py, flows.py
    items.py, patch.py, listing.py  a resource as it is shown, changed, listed
    fit.py          whether a flow can run
    runs.py, triggers.py, batches.py  runs as they are listed, asked for, and what they left
    explore.py, specs.py, registry.py, datasets.py, mappings.py, sandboxes.py  the other calls
    filters.py      the lists of Catalog and the Schema Registry
    health.py       for those who watch it

    plane.py        what all routes share
    secrecy.py      no text holds a password
    problems.py     what went wrong -> Flow Service's error bodies
"""
