"""Two flows in a configuration file, at a clock that stands still."""

from engine.model.retry import RateLimit

NOON = 1_704_888_000_000  # 2024-01-10, 12:00 UTC
HOUR = 3_600_000
FAST = RateLimit(per_second=1000)  # the clock stands still
FLOWS = """
home = "home"
[connections.shop]
[flows.events]
connection = "shop"
dataset = "data/events"
schedule = {{ frequency = "minute", interval = 15, start_time = {start} }}
backfill_from = "2024-01-02"
[flows.daily]
connection = "shop"
dataset = "data/daily"
windows = "day"
backfill_from = "2024-01-09"
schedule = {{ frequency = "day", interval = 1, start_time = {start} }}
"""
