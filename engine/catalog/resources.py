"""The control plane's resources in the catalog: JSON documents, each with an etag.

A resource that another one uses cannot be deleted. Every change is one SQLite transaction.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any
from uuid import uuid4

from engine.catalog.database import Catalog
from engine.errors import EtagMismatch, NotFound, ResourceInUse

Json = dict[str, Any]

_COLUMNS = "kind, id, etag, created_at, updated_at, body, secret, origin"


@dataclass(frozen=True, slots=True)
class Resource:
    """A document `body` of the control plane, and what is stored beside it.

    kind    the last part of its collection's path, as "sourceConnections"
    etag    changes with each change of the resource; without the quotes that responses add
    secret  encrypted values that no response shows; None if it has none (P7)
    origin  the configuration file that it was applied from; None if a client created it
    """

    kind: str
    id: str
    etag: str
    created_at: int  # ms since the epoch
    updated_at: int
    body: Json
    secret: bytes | None = None
    origin: str | None = None


class Resources:
    """The resources of a catalog. Thread-safe."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def create(self, resource: Resource, uses: Iterable[str] = ()) -> None:
        """Store a new resource; NotFound if one of the ids in `uses` does not exist."""
        with self._catalog.transaction() as connection:
            names = ", ".join(f":{name}" for name in _COLUMNS.split(", "))
            row = {each.name: getattr(resource, each.name) for each in fields(resource)}
            connection.execute(
                f"INSERT INTO resources ({_COLUMNS}) VALUES ({names})",  # noqa: S608  # our own names only
                row | {"body": _text(resource.body)},
            )
            _tie(connection, resource, uses)

    def get(self, kind: str, id_: str) -> Resource:
        """Return the resource of that kind and id; NotFound if it does not exist."""
        query = f"SELECT {_COLUMNS} FROM resources WHERE id = ? AND kind = ?"  # noqa: S608  # our own names only
        rows = self._catalog.read(query, [id_, kind])
        if not rows:
            raise NotFound(kind, id_)
        return _resource(*rows[0])

    def all(self, kind: str) -> list[Resource]:
        """Return all resources of that kind, the oldest first."""
        query = f"SELECT {_COLUMNS} FROM resources WHERE kind = ? ORDER BY created_at, rowid"  # noqa: S608  # our own names only
        return [_resource(*row) for row in self._catalog.read(query, [kind])]

    def users(self, id_: str) -> list[tuple[str, str]]:
        """Return the kinds and ids of the resources that use the one with this id."""
        query = "SELECT kind, id FROM uses JOIN resources ON id = user WHERE used = ?"
        return [(kind, user) for kind, user in self._catalog.read(query, [id_])]

    def change(
        self,
        kind: str,
        id_: str,
        etag: str | None,
        now: int,
        edit: Callable[[Resource], tuple[Resource, Iterable[str]]],
    ) -> Resource:
        """Replace a resource by what `edit` returns: the resource, and the ids that it uses.

        An error of `edit` leaves it unchanged. EtagMismatch unless its etag is `etag` (None: any).
        The result has a new etag and the time of change `now` (ms). This is one transaction: of two
        writers with the same etag, one succeeds.
        """
        with self._catalog.transaction() as connection:
            before = self.get(kind, id_)
            if etag is not None and etag != before.etag:
                raise EtagMismatch(etag, before.etag)
            edited, uses = edit(before)
            after = replace(edited, etag=str(uuid4()), updated_at=max(now, before.updated_at))
            connection.execute(
                "UPDATE resources SET etag = ?, updated_at = ?, body = ?, secret = ?, origin = ?"
                " WHERE id = ?",
                [after.etag, after.updated_at, _text(after.body), after.secret, after.origin, id_],
            )
            connection.execute("DELETE FROM uses WHERE user = ?", [id_])
            _tie(connection, after, uses)
        return after

    def delete(
        self, kind: str, id_: str, check: Callable[[Resource], None] = lambda _: None
    ) -> None:
        """Delete a resource; ResourceInUse if another one uses it; `check` may raise to refuse."""
        with self._catalog.transaction() as connection:
            check(self.get(kind, id_))
            if users := self.users(id_):
                raise ResourceInUse(kind, id_, *users[0])
            connection.execute("DELETE FROM uses WHERE user = ?", [id_])
            connection.execute("DELETE FROM resources WHERE id = ?", [id_])


def new(
    kind: str,
    body: Json,
    now: int,
    *,
    id_: str | None = None,
    secret: bytes | None = None,
    origin: str | None = None,
) -> Resource:
    """Return a resource that is not stored yet, with a new id unless `id_` is given."""
    return Resource(kind, id_ or str(uuid4()), str(uuid4()), now, now, body, secret, origin)


def _tie(connection: Any, resource: Resource, uses: Iterable[str]) -> None:
    for used in dict.fromkeys(uses):
        if not connection.execute("SELECT 1 FROM resources WHERE id = ?", [used]).fetchone():
            raise NotFound("resources", used)
        connection.execute("INSERT INTO uses (user, used) VALUES (?, ?)", [resource.id, used])


def _text(body: Json) -> str:
    return json.dumps(body, separators=(",", ":"))


def _resource(*row: Any) -> Resource:
    kind, id_, etag, created_at, updated_at, body, secret, origin = row
    return Resource(kind, id_, etag, created_at, updated_at, json.loads(body), secret, origin)
