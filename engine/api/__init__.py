"""The control plane: Flow Service's calls, answered by the daemon. It decides nothing of its own:
each route is a few lines on the resources, the planner and the history of runs.

problems.py   what went wrong -> Flow Service's error bodies
plane.py      what all routes share
app.py        the routes together, and who may call them
"""
