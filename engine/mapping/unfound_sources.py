"""Which rules found nothing in a whole run, though a property with nearly their name came. Pure."""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from difflib import get_close_matches

from engine.mapping.mapping_set import Rule

MOST_NAMES = 5000  # property names of a run; with more of them, names are data and say nothing
CLOSE = 0.8  # of difflib's ratio: a letter in five is wrong
LONGEST = 100  # characters of a name that is compared, or shown


@dataclass(slots=True)
class Names:
    """The property names that occur in a run.

    Every name is in a batch that goes the plain way, before any other way may meet it.
    """

    seen: set[str] = field(default_factory=set)
    many: bool = False

    def note(self, names: Set[str]) -> None:
        """Take the names of a batch."""
        if not self.many:
            self.seen |= names
            self.many = len(self.seen) > MOST_NAMES


def unfound(rules: Iterable[Rule], names: Names, events: int) -> list[str]:
    """A sentence for each rule that reads a property which no event has, while a near one came.

    A name that another rule reads is near to nobody: it has its place.
    """
    if not events or names.many:
        return []
    rules = [rule for rule in rules if not rule.source.expression]
    read = {name for rule in rules for name in rule.source.names}
    free = {name for name in names.seen - read if len(name) <= LONGEST and name.isprintable()}
    of = "1 event" if events == 1 else f"{events:,} events"
    found = []
    for rule in rules:
        if not names.seen.isdisjoint(rule.source.names):
            continue
        if rule.source.names and (near := _near(rule.source.names[0], free)):
            found.append(
                f"Rule {rule.number} ({rule.written[:LONGEST]}) found nothing in {of}; "
                f"there is {near}."
            )
    return found


def _near(name: str, free: Set[str]) -> str | None:
    """The name in `free` that may have been meant."""
    if len(name) > LONGEST:
        return None
    for other in (f"${name}", name.removeprefix("$")):
        if other in free:
            return other
    bare = {other.removeprefix("$").lower(): other for other in sorted(free)}
    near = get_close_matches(name.removeprefix("$").lower(), bare, 1, CLOSE)
    return bare[near[0]] if near else None
