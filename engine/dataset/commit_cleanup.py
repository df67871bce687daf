"""Finishes or rolls back what a process that was killed left below the root (P2).

Files there that cannot be read are renamed to `….damaged`, and named in `notices`.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from ulid import ULID

from engine.dataset import commit_intent as intents
from engine.dataset import layout
from engine.dataset.commit_intent import Intent
from engine.dataset.log_entries import paths_in
from engine.dataset.table import Table, translated
from engine.errors import disk_error


class RecoverableTable(Table):
    """A table that can be brought back to the state after a commit, while the lock is held."""

    def __init__(
        self, root: Path, schema: pa.Schema | None, source: Mapping[str, Any] | None
    ) -> None:
        self.unreported: list[tuple[str, Any]] = []  # (batch id, record), after a crash
        self.notices: list[str] = []  # what was found damaged, and what was done about it
        self._locked = False  # set before the log is read, which may find damage
        super().__init__(root, schema, source)
        self._locked_id: str | None = None  # of the table that was there when it was locked

    def _sweep(self) -> None:
        """Finish or roll back every interrupted commit, without listing the data files (P2)."""
        for name, kind in sorted(self._storage.entries(layout.STAGING)):
            if kind == "other" and not name.endswith(layout.DAMAGED):
                self._put_aside(f"{layout.STAGING}/{name}")  # nothing is deleted through a link
            elif kind == "folder" and self._recover(name):
                intent = intents.read(self._storage, layout.intent(name))
                self.unreported.append((name, intent and intent.record))
            elif kind == "folder":
                self.discard(name)
        self._delete_due()

    def _recover(self, batch_id: str) -> bool:
        """Finish or roll back a commit and return whether it is in the table. Idempotent."""
        path = layout.intent(batch_id)
        staged = {entry.name: entry for entry in self._storage.entries(layout.staged(batch_id))}
        found = staged.get(path.rpartition("/")[2])
        if found is None:
            return False
        intent = intents.read(self._storage, path) if found.kind == "file" else None
        if intent is None:
            return self._recover_unread(batch_id)
        if not self.exists:
            return False
        if not self._is_in_table(intent):
            self._delete(intent.add)
            self._storage.delete([f"{layout.batch(batch_id)}/"])
            return False
        self._log.sync(self._version)  # before anything goes that it replaces
        if intent.due:
            self._storage.write(layout.superseded(intent.due, batch_id), intent.as_text())
        else:
            self._delete(intent.remove)
        return True

    def _recover_unread(self, batch_id: str) -> bool:
        """Do as `_recover` where the intent cannot be read: the log says what it contained."""
        aside = self._storage.set_aside(layout.intent(batch_id), layout.intent_aside(batch_id))
        entry = self._log.entry_of(batch_id) if self.exists else None
        became = "it is in the table" if entry else "it never came into the table"
        self.notices.append(
            f"What batch {batch_id} was about could not be read: {became}. What was there is now "
            f"{self.root / layout.STAGING / aside}, and can be deleted."
        )
        if entry:
            self._log.sync(self._version)
            self._delete(sorted(paths_in(entry, ["remove"])))
            return True
        if self.exists:
            self._delete([path for path in self._orphans() if layout.batch_of(path) == batch_id])
            self._storage.delete([f"{layout.batch(batch_id)}/"])
        return False

    def _is_in_table(self, intent: Intent) -> bool:
        """Whether a commit is in the table, even if a later one has replaced a part of it."""
        reached = all(self.position(app) == at for app, at in intent.positions.items())
        return reached or bool(self._live(intent.add))

    def discard(self, batch_id: str) -> None:
        """Delete what is staged for a batch that is committed or will not be."""
        with disk_error(f"tidy up in {self.root}"):
            # Without its intent, the rest is no commit in progress.
            self._storage.delete([layout.intent(batch_id)])
            self._storage.delete([f"{layout.staged(batch_id)}/"])

    def _orphans(self) -> list[str]:
        """Return the data files of this program that neither the log nor SUPERSEDED names."""
        known = self._log.mentioned()
        for name, kind in self._storage.entries(layout.SUPERSEDED):
            if kind == "file" and layout.parse_superseded(name):
                intent = intents.read(self._storage, f"{layout.SUPERSEDED}/{name}")
                known.update(intent.remove if intent else ())
        folders = [name for name, _ in self._storage.entries("") if layout.is_day_folder(name)]
        paths = (f"{day}/{name}" for day in folders for name, _ in self._storage.entries(day))
        return [path for path in paths if layout.is_own_data_file(path) and path not in known]

    def _live(self, paths: Sequence[str]) -> set[str]:
        if not self.exists or not paths:
            return set()
        with translated(f"read the log of {self.root}"):
            files = self._files(self._current())["path"]
        return set(files.filter(pc.is_in(files, pa.array(paths, pa.string()))).to_pylist())

    def _delete(self, paths: Sequence[str]) -> None:
        live = self._live(paths)
        # A path outside the root belongs to another table.
        going = [self._data.stored(path) for path in paths if path not in live]
        for folder in self._storage.delete(filter(layout.is_inside, going)):
            self._put_aside(folder)

    def _delete_due(self) -> None:
        """Delete the replaced files whose hours are over."""
        now = int(time.time() * 1000)
        for name, kind in sorted(self._storage.entries(layout.SUPERSEDED)):
            if name.startswith(".") or name.endswith(layout.DAMAGED):
                continue
            path, parsed = f"{layout.SUPERSEDED}/{name}", layout.parse_superseded(name)
            if parsed is None or kind != "file":
                self._put_aside(path)
                continue
            due, batch_id = parsed
            made = _made_at(batch_id)
            if due > now >= made:
                continue
            intent = intents.read(self._storage, path)
            if intent is None:
                self._put_aside(path)
                continue
            if due <= now:
                self._delete(intent.remove)
            else:  # a clock that was ahead noted it: its hours begin now
                later = layout.superseded(now + max(0, due - made), batch_id)
                self._storage.write(later, intent.as_text())
            self._storage.delete([path])

    def _mend(self) -> None:
        """Set aside what a crash left of the log, and delete the files of lost entries."""
        if not self._locked:
            super()._mend()  # which raises DatasetError
        cut_off = bool(self._log.cut_off)
        self.notices += self._log.mend()
        self._open()
        if cut_off and self.exists:
            self._delete(self._orphans())

    def _put_aside(self, path: str) -> None:
        name = self._storage.set_aside(path)
        self.notices.append(
            f"{self.root / path} is nothing that this program left there: it is now {name}, and "
            "can be deleted."
        )


def _made_at(batch_id: str) -> int:
    """Return when a batch was made, in ms since the epoch; 0 for a name that is no batch id."""
    try:
        return ULID.from_str(batch_id).milliseconds
    except ValueError:
        return 0
