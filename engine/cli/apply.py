"""`apply`: store the flows of a configuration file in its home."""

import os
from pathlib import Path
from signal import SIGHUP
from typing import Annotated

import typer

from engine.cli.console import print_message, print_result
from engine.cli.lazy_imports import lazy_imports
from engine.config.file import Api
from engine.control import declared_flows
from engine.model import clock

with lazy_imports():
    from engine.catalog import database, resources
    from engine.control import from_config, secrets
    from engine.dataset.storage import local


def apply(
    config_file: Annotated[Path, typer.Argument(metavar="FILE", help="A configuration (TOML).")],
) -> None:
    """Store the flows of a file in its home, for any daemon of that home.

    Flows that an earlier version of the file declared, and this one does not, are deleted. A
    daemon that runs with that home reloads at once.
    """
    config = declared_flows.loaded(config_file)
    secret_store = secrets.secret_store_of(config.home, (config.api or Api()).key)
    origin = declared_flows.origin_of(config_file)
    with database.Catalog(config.home) as catalog:
        changes = from_config.apply(
            config, resources.Resources(catalog), secret_store, clock.now(), origin
        )
    for change in changes:
        print_result(change)
    if not changes:
        print_message("Nothing changed.")
    elif process := local.holder(config.home / declared_flows.LOCK):
        os.kill(process, SIGHUP)
        print_message(f"The daemon that runs there, process {process}, follows.")
