"""The source: requests, responses and what they mean, proxies, time-outs.

The only importer of httpx. It knows neither lines nor events nor tables.
"""
