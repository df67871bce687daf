"""The source: requests and connections, time-outs, response bodies, error responses, proxies.

`client` is the only importer of httpx. Lines, events and tables have no place here.
"""
