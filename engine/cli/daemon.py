"""`daemon`: run the flows of a configuration on their schedules."""

import os

from engine.cli.lazy_imports import lazy_imports
from engine.cli.options import RequiredConfig

with lazy_imports():
    from engine import log
    from engine.daemon import daemon as daemon_process


def daemon(config_file: RequiredConfig) -> int:
    """Run the flows on their schedules until SIGTERM or Ctrl-C.

    SIGHUP reloads the configuration.
    """
    log.configure()
    return daemon_process.Daemon(config_file, os.environ).run()
