"""Pure data and rules: windows, flows, schedules, retries, batches, run records, the clock.

Every room may import this one, which imports `errors` alone. No I/O: the time is an argument.
"""
