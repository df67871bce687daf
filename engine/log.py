"""The log of a program that runs for months: key=value lines on a terminal, else JSON lines.

The only importer of structlog. No line ever holds a credential (P7).
"""

import logging
import os
import sys
from typing import Any

import structlog


def configure(**bound: Any) -> None:
    """Write the log to stderr from now on; `bound` are fields of every line."""
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
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),  # looked up at each line
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**bound)
    # APScheduler warns of every tick during a run, which is normal.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)


log: Any = structlog.get_logger()
