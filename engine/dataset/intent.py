"""A commit on its way, as the file `intent.json` beside its staged files says it.

What a crash or a hand left of such a file is read with distrust: paths in it get deleted.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Intent:
    """What a commit adds and removes, and the positions that tell whether it is in the table.

    due     when the files that it replaces may go, in ms since the epoch; 0: at once
    record  what to tell of the batch, for its owner to read
    """

    add: list[str]
    remove: list[str]
    positions: dict[str, int]
    due: int
    record: Any

    def as_text(self) -> str:
        """The form that `read` takes."""
        return json.dumps(asdict(self))


def read(path: Path) -> Intent | None:
    """The intent in the file at `path`; None where it holds anything else or is gone."""
    try:
        found = json.loads(path.read_bytes())
        intent = Intent(**{each.name: found[each.name] for each in fields(Intent)})
    except (ValueError, TypeError, KeyError, RecursionError, FileNotFoundError):
        return None
    return intent if _is_sound(intent) else None


def is_inside(path: str) -> bool:
    """Whether a path of the table's log names a file below the table's root, and nothing else."""
    if not path or path[0] == "/" or ":/" in path:
        return False
    return ".." not in path or ".." not in path.split("/")


def _is_sound(intent: Intent) -> bool:
    paths, positions = (intent.add, intent.remove), intent.positions
    return (
        all(isinstance(each, list) and all(type(path) is str for path in each) for each in paths)
        and all(map(is_inside, intent.add))
        and isinstance(positions, dict)
        and all(type(version) is int for version in positions.values())
        and type(intent.due) is int
    )
