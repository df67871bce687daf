"""What all routes share."""

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
    """What a route works with.

    home      where the catalog is
    secret_store  encrypts what no answer shows
    datasets  the folder of the tables that clients make
    now       the clock, in ms since the epoch
    changed   to be called after a change of what runs: it takes effect at once
    unready   what the program cannot do at this moment, each in a sentence
    files     the daemon's own configuration file: its flows run, whether or not it is still there
    hosts     what connections of clients may ask, besides Mixpanel's own hosts
    making    held while something is made: what was checked for it is true until it is there
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
        """What clients made, and what was applied from configuration files."""
        return Resources(self.catalog)


def _app_state(request: Request) -> AppState:
    state: AppState = request.app.state.app_state
    return state


State = Annotated[AppState, Depends(_app_state)]
