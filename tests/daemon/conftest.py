"""The sandbox of the daemon's tests."""

from collections.abc import Iterator

import pytest

from engine.sandbox import Sandbox
from tests.support.daemons import SPEC


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox with late, rejected and duplicate events."""
    with Sandbox(SPEC) as running:
        yield running
