"""The sentence about days of which Mixpanel has no event. Pure."""

from collections.abc import Sequence
from datetime import date

from engine.model.flow import Flow
from engine.model.window import Window, consecutive

SHOWN = 3  # spans of days, or names of events


def sentence(flow: Flow, days: Sequence[date], *, all_: bool) -> str:
    """Say that `days` are empty, and the possible causes; `all_`: no requested day has events."""
    runs = consecutive(days)
    spans = _some([str(Window(run[0], run[-1])) for run in runs], ", ")
    said = f"Mixpanel has no event of {spans}"
    if flow.events and all_:
        which = _some([name[:100] for name in flow.events], " or ")
        said = f"No event is called {which} on {'this day' if len(days) == 1 else 'these days'}."
        said += f" Mixpanel has none of {spans}"
    filters = "with your filter" if flow.where else "without a filter"
    if flow.events and not all_:
        filters = f"of your events, {filters}"
    return (
        f"{said} ({flow.connection.host}, project {flow.connection.project_id}, {filters}). "
        "If there should be some, check the region, the project, the filter and the dates."
    )


def _some(texts: Sequence[str], between: str) -> str:
    more = len(texts) - SHOWN
    return between.join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")
