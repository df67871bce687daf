"""A local stand-in for Mixpanel's raw export endpoint, with seeded data and faults on demand.

`with Sandbox(Spec(...)) as sandbox:` runs it in a thread, `serve` in the foreground.
"""

from engine.sandbox.endpoint import PASSWORD, PROJECT_ID, USERNAME, Project
from engine.sandbox.events import Spec, Truth, day_lines, truth
from engine.sandbox.server import Sandbox, serve

__all__ = [
    "PASSWORD", "PROJECT_ID", "USERNAME", "Project", "Sandbox", "Spec", "Truth", "day_lines",
    "serve", "truth",
]  # fmt: skip
