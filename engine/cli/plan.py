"""`plan`: show which requests the daemon would send now, and why."""

from engine.cli.console import print_json, print_message, utc_minute
from engine.cli.flow_selection import statuses_of
from engine.cli.lazy_imports import lazy_imports
from engine.cli.options import AsJson, OnlyFlow, RequiredConfig
from engine.model import retry
from engine.model.clock import duration

with lazy_imports():
    from engine.cli import progress


def plan(config_file: RequiredConfig, flow: OnlyFlow = None, as_json: AsJson = False) -> None:
    """Show which requests the daemon would send now, and why; send none."""
    statuses, problems = statuses_of(config_file, flow)
    if as_json:
        print_json([
            {"flow": each.flow.name, "problem": each.problem or None, "due": [
                {"why": due.why, "window": due.window.as_json()} for due in each.due]}
            for each in statuses
        ])  # fmt: skip
        return
    rows = [(each.flow.name, due.why, due.window) for each in statuses for due in each.due]
    if rows:
        progress.table(["flow", "why", "window"], rows)
    for each in statuses:
        name = each.flow.name
        for note in filter(None, (each.undone, each.changed)):
            print_message(f"{name}: {note}")
        if each.problem or not each.flow.schedule:
            why = each.problem or "it has no schedule: the daemon leaves it alone."
            print_message(f"{name}: {why}")
            continue
        per_hour = retry.DEFAULT_RATE_LIMIT.per_hour
        left = per_hour - each.requests_last_hour
        when = "at once" if each.hours == 0 else f"in {duration(each.hours * 3600)}"
        requests = "1 request" if each.requests == 1 else f"{each.requests:,} requests"
        print_message(
            f"{name}: {requests}; {left} of {per_hour} left this hour: "
            f"done {when}. Next tick: {utc_minute(each.next_tick)}."
        )
    for name, why in problems.items():
        print_message(f"{name}: {why}")
