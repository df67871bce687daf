"""A commit in progress, as the file `intent.json` of the staged batch describes it.

After a crash the file may hold anything, and paths in it get deleted: `read` trusts nothing.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from engine.dataset.layout import is_inside
from engine.dataset.storage.base import Storage, read_bytes


@dataclass(frozen=True, slots=True)
class Intent:
    """What a commit adds and removes, and the positions that show whether it is in the table.

    add, remove  data files
    due          when the removed files may be deleted, in ms since the epoch; 0: at once
    record       the record of the run, as JSON, for the caller of `Dataset.commit`
    """

    add: list[str]
    remove: list[str]
    positions: dict[str, int]
    due: int
    record: Any

    def as_text(self) -> str:
        """Return the text that `read` understands."""
        return json.dumps(asdict(self))


def read(storage: Storage, path: str) -> Intent | None:
    """Return the intent in a file; None if the file is missing or holds anything else."""
    try:
        found = json.loads(read_bytes(storage, path))
        intent = Intent(**{each.name: found[each.name] for each in fields(Intent)})
    except (ValueError, TypeError, KeyError, RecursionError, FileNotFoundError):
        return None
    return intent if _is_sound(intent) else None


def _is_sound(intent: Intent) -> bool:
    paths, positions = (intent.add, intent.remove), intent.positions
    return (
        all(isinstance(each, list) and all(type(path) is str for path in each) for each in paths)
        and all(map(is_inside, intent.add))
        and isinstance(positions, dict)
        and all(type(version) is int for version in positions.values())
        and type(intent.due) is int
    )
