"""Pure nouns: windows, flows, schedules, batches, the payload of a run, the clock.

Everybody imports them; they import errors alone. No I/O lives here: the time is an argument.
"""
