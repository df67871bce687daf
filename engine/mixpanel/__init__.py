"""The source: a module each for requests, connections, time-outs, bodies, error responses, proxies.

`client` is the only importer of httpx. Lines, events and tables have no place here.
"""
