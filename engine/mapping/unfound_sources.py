"""Find mapping rules whose source no event of a run had, while one had a similar name. Pure."""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from difflib import get_close_matches

from engine.mapping.mapping_set import Rule

MOST_NAMES = 5000  # property names of a run; with more of them, names are data
CLOSE = 0.8  # of difflib's ratio: a letter in five is wrong
LONGEST = 100  # characters of a name that is compared, or shown


@dataclass(slots=True)
class Names:
    """The property names of a run.

    The slow path decodes a batch with each new name before the fast path may decode that name.
    """

    seen: set[str] = field(default_factory=set)
    many: bool = False

    def note(self, names: Set[str]) -> None:
        """Add the names of a batch."""
        if not self.many:
            self.seen |= names
            self.many = len(self.seen) > MOST_NAMES


def unfound(rules: Iterable[Rule], names: Names, events: int) -> list[str]:
    """Return a sentence for each rule whose property no event had, but one of a similar name.

    Names that another rule reads do not count as similar.
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
    if len(name) > LONGEST:
        return None
    for other in (f"${name}", name.removeprefix("$")):
        if other in free:
            return other
    bare = {other.removeprefix("$").lower(): other for other in sorted(free)}
    near = get_close_matches(name.removeprefix("$").lower(), bare, 1, CLOSE)
    return bare[near[0]] if near else None
