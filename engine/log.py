"""What a program that runs for months tells: a line a run, as key=value on a terminal, else JSON.

The only importer of structlog. No line ever holds a credential (P7): none is given one.
"""

import logging
import os
import sys
from typing import Any

import structlog


def configure(**bound: Any) -> None:
    """Write to stderr from here on; `bound` stands on every line."""
    watched = sys.stderr.isatty()
    colors = watched and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    form: Any = (
        structlog.dev.ConsoleRenderer(colors=colors)
        if watched
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            form,
        ],
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),  # as it is at each line
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**bound)
    # It would tell of every tick that falls into a run, which is as it should be.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)


log: Any = structlog.get_logger()
