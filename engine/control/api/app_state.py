"""The state that all routes share: catalog, secret store, clock, configuration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Annotated

from fastapi import Depends, Request

from engine.catalog.database import Catalog
from engine.catalog.resources import Resources
from engine.control.secrets import SecretStore


@dataclass(frozen=True, slots=True)
class AppState:
    """The state that all routes share.

    home          the folder of the catalog
    secret_store  encrypts the secrets of resources
    datasets      the folder of the tables of clients
    now           the clock, in ms since the epoch
    changed       called after a change of flows, so that the daemon follows at once
    unready       returns the problems of the daemon, a sentence each
    files         configuration files of the daemon: their flows run even after they are deleted
    hosts         hosts that connections of clients may use, besides Mixpanel's own
    making        a lock from the checks of a new resource until it is stored
    """

    home: Path
    catalog: Catalog
    secret_store: SecretStore
    datasets: Path
    environ: Mapping[str, str]
    now: Callable[[], int]
    changed: Callable[[], None]
    unready: Callable[[], Sequence[str]] = tuple
    files: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    making: Lock = field(default_factory=Lock)

    @property
    def resources(self) -> Resources:
        """The resources of clients, and those that were applied from configuration files."""
        return Resources(self.catalog)


def _app_state(request: Request) -> AppState:
    state: AppState = request.app.state.app_state
    return state


State = Annotated[AppState, Depends(_app_state)]
