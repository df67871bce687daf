"""What the control plane keeps: every resource one JSON document with an etag, in the catalog.

A resource is tied to those that it names: none of them can be deleted while it is there. Every
change is one transaction of SQLite's, so that a kill leaves the whole of it or nothing.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from engine.catalog.database import Catalog
from engine.errors import EtagMismatch, NotFound, ResourceInUse

Json = dict[str, Any]

_COLUMNS = "kind, id, etag, created_at, updated_at, body, secret, origin"


@dataclass(frozen=True, slots=True)
class Resource:
    """One of them. `body` is what it says of itself; the rest is kept beside it.

    kind    the last part of its collection's path, as "sourceConnections"
    etag    changes with every change; without the quotes that it has in an answer
    secret  what no answer shows, encrypted; None where there is none (P7)
    origin  the configuration file that it was applied from; None if a client made it
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
    """The resources of a catalog. Safe to share between threads, as that is."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def create(self, resource: Resource, uses: Iterable[str] = ()) -> None:
        """Keep a new one. NotFound if one of the ids that it `uses` is not there."""
        with self._catalog.transaction() as connection:
            connection.execute(
                f"INSERT INTO resources ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # our own names only
                _row(resource),
            )
            _tie(connection, resource, uses)

    def get(self, kind: str, id_: str) -> Resource:
        """The one of that kind and id; NotFound if there is none."""
        query = f"SELECT {_COLUMNS} FROM resources WHERE id = ? AND kind = ?"  # noqa: S608  # our own names only
        rows = self._catalog.read(query, [id_, kind])
        if not rows:
            raise NotFound(kind, id_)
        return _resource(*rows[0])

    def all(self, kind: str) -> list[Resource]:
        """All of that kind, the oldest first."""
        query = f"SELECT {_COLUMNS} FROM resources WHERE kind = ? ORDER BY created_at, rowid"  # noqa: S608  # our own names only
        return [_resource(*row) for row in self._catalog.read(query, [kind])]

    def users(self, id_: str) -> list[tuple[str, str]]:
        """The kinds and ids of the resources that use this one."""
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
        """Put what `edit` makes of a resource, and the ids that it uses then, in its place.

        Whatever `edit` raises leaves it as it was. Stale unless its etag is this one (None: any).
        The answer has a new etag, and `now`, in ms, as the time of its change. No other change
        comes in between: of two writers with one etag, one wins.
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
        """Delete one. ResourceInUse while another one uses it; what `check` raises keeps it."""
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
    """A resource that is not kept yet, with an id of its own unless it is given one."""
    return Resource(kind, id_ or str(uuid4()), str(uuid4()), now, now, body, secret, origin)


def _tie(connection: Any, resource: Resource, uses: Iterable[str]) -> None:
    for used in dict.fromkeys(uses):
        if not connection.execute("SELECT 1 FROM resources WHERE id = ?", [used]).fetchone():
            raise NotFound("resources", used)
        connection.execute("INSERT INTO uses (user, used) VALUES (?, ?)", [resource.id, used])


def _text(body: Json) -> str:
    return json.dumps(body, separators=(",", ":"))


def _row(resource: Resource) -> tuple[Any, ...]:
    return (
        resource.kind,
        resource.id,
        resource.etag,
        resource.created_at,
        resource.updated_at,
        _text(resource.body),
        resource.secret,
        resource.origin,
    )


def _resource(*row: Any) -> Resource:
    kind, id_, etag, created_at, updated_at, body, secret, origin = row
    return Resource(kind, id_, etag, created_at, updated_at, json.loads(body), secret, origin)
