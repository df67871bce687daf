"""What one pull needs, as data for any process; credentials travel apart from it (P7)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from engine.mixpanel.timeouts import DEFAULT_TIMEOUTS, Timeouts
from engine.model.flow import Connection, Flow, Run, Secret
from engine.sync.reject_limits import Tolerance
from engine.sync.rejected_lines import RejectedLines

Document = tuple[str, Any]  # the name of a mapping set or a schema, and its JSON document


@dataclass(frozen=True, slots=True)
class Credentials:
    """The service account that a request is made with. It crosses processes by a pipe alone."""

    username: str
    password: Secret

    @classmethod
    def of(cls, connection: Connection) -> "Credentials":
        """Take the credentials of a connection."""
        return cls(connection.username, connection.password)

    def as_bytes(self) -> bytes:
        """Encode the credentials for a pipe; `from_bytes` is the way back."""
        return json.dumps([self.username, self.password.reveal()]).encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> "Credentials":
        """Decode what `as_bytes` encoded."""
        username, password = json.loads(value)
        return cls(username, Secret(password))

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are not pickled")  # P7


@dataclass(frozen=True, slots=True)
class PullTask:
    """One pull as data: JSON can hold all of it, and no secret is part of it (P7).

    connection  the name of the connection; `host`, `project_id` and `timezone` are its own
    directory   where the pull writes its files
    table       the table whose events are compared with the new ones: an event that it holds is a
                duplicate (P4). None: the pull replaces whole days
    rejects     rejected lines that are read instead of a response. None: a request is made
    """

    run: Run
    connection: str
    host: str
    project_id: int
    timezone: str
    events: tuple[str, ...]
    where: str | None
    delay_minutes: int
    unmapped: str
    tolerance: Tolerance
    mapping: Document
    schema: Document
    directory: str
    table: str | None = None
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    rejects: RejectedLines | None = None

    @classmethod
    def of(
        cls, flow: Flow, mapping: Document, schema: Document, run: Run, directory: Path, **more: Any
    ) -> "PullTask":
        """Describe the pull of `run`; `more`: fields that have defaults."""
        connection = flow.connection
        return cls(
            run=run,
            connection=connection.name,
            host=connection.host,
            project_id=connection.project_id,
            timezone=connection.timezone,
            events=flow.events,
            where=flow.where,
            delay_minutes=flow.delay_minutes,
            unmapped=flow.unmapped,
            tolerance=Tolerance(flow.partial_ingestion_percent, flow.partial_ingestion_min),
            mapping=mapping,
            schema=schema,
            directory=str(directory),
            **more,
        )

    def connect(self, credentials: Credentials) -> Connection:
        """Return the connection that the requests of this pull use."""
        name, password = credentials.username, credentials.password
        return Connection(
            self.host, name, password, self.project_id, self.timezone, self.connection
        )
