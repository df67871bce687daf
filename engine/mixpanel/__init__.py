"""The source: a module each for requests, connections, time-outs, bodies, error responses, proxies.

`client` is the only importer of httpx. The room knows neither lines nor events nor tables.
"""
