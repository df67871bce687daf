"""The errors of this package, named by what their reader does next.

    EtlError
    ├── InputError          fix your input; nothing was tried              (exit 2)
    │   └── InvalidResource a resource cannot be as it is described
    ├── NotFound            name a resource that is there
    ├── EtagMismatch        read the resource again, and change what it is now
    ├── ResourceInUse       delete what uses it first
    ├── RetryableError      pull the same window again, whole              (P1)
    │   ├── Truncated       the response did not end cleanly
    │   ├── RateLimited     429: costs a wait, not an attempt
    │   ├── Unavailable     no answer, a broken connection, a 5xx
    │   └── WorkerKilled    the process that pulled was killed, perhaps out of memory
    └── PermanentError      the same request would fail again
        ├── Refused         credentials, payment, permission, a bad `where`
        │   └── TooLate     the last day has not begun by the project's clock
        ├── TooManyRejects  more rejected rows than the flow tolerates
        ├── ShrinkDetected  far fewer rows than the day already holds      (P5)
        └── DatasetError    the table cannot be written: disk, rights, lock, conflict

A message is one or two plain sentences: what is wrong, where, what to do. No message ever holds a
credential (P7).
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.model.batch import Tally

CODE_COPY = "CONNECTOR-1001-500"
CODE_PROCESS = "CONNECTOR-2001-500"
CODE_BATCH = "CONNECTOR-3001-500"


class EtlError(Exception):
    """The base of every error of this package. Its attributes go into the run record.

    code    Flow Service's code
    tally   counts up to the error; None where nothing was counted
    copied  when the whole response was received, in ms since the epoch; None if it was not
    """

    code = CODE_PROCESS
    tally: "Tally | None" = None
    copied: int | None = None


class InputError(EtlError):
    """The user's input is wrong. Nothing was tried."""


class InvalidResource(InputError):
    """A resource's document is wrong; `number`: of Flow Service's error, such as "1413-400"."""

    def __init__(self, number: str, message: str) -> None:
        super().__init__(message)
        self.number = number


class NotFound(EtlError):
    """The named resource does not exist."""

    def __init__(self, kind: str, id_: str) -> None:
        super().__init__(f"There is no resource {id_} among the {kind}.")
        self.kind, self.id = kind, id_


class EtagMismatch(EtlError):
    """The resource was changed since its etag was read."""

    def __init__(self, given: str, current: str) -> None:
        super().__init__(f'The version is "{current}" by now, not "{given}".')
        self.given, self.current = given, current


class ResourceInUse(EtlError):
    """Another resource uses this one, which therefore cannot be deleted."""

    def __init__(self, kind: str, id_: str, user_kind: str, user: str) -> None:
        used, using = kind.removesuffix("s"), user_kind.removesuffix("s")
        super().__init__(f"The {used} {id_} is used by the {using} {user}.")
        self.kind, self.id, self.user_kind, self.user = kind, id_, user_kind, user


class RetryableError(EtlError):
    """The same window may succeed later.

    `retry_after`: seconds to wait, by the server's header, or None. `reached`: whether there was a
    connection at all; a request that was never sent costs nothing of the hourly budget.
    """

    code = CODE_COPY
    reached = True
    empty = False  # whether the response is known to hold no event

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Truncated(RetryableError):
    """The response was not whole (P1)."""


class RateLimited(RetryableError):
    """Mixpanel answered 429."""


class Unavailable(RetryableError):
    """Mixpanel could not be reached, stopped answering, or failed."""


class WorkerKilled(RetryableError):
    """The process that pulled a window was killed."""

    code = CODE_PROCESS


class PermanentError(EtlError):
    """The same request would fail again.

    `days`: the days of the window that are known to cause the error; empty where it is unknown.
    """

    days: frozenset[date] = frozenset()


class Refused(PermanentError):
    """Mixpanel refused the request for good."""

    code = CODE_COPY


class TooLate(Refused):
    """By Mixpanel's clock, the last day of the window has not begun yet."""


class TooManyRejects(PermanentError):
    """More records were rejected than the flow tolerates."""


class ShrinkDetected(PermanentError):
    """A re-pull brought far fewer rows than the table holds (P5)."""

    code = CODE_BATCH


class DatasetError(PermanentError):
    """The dataset could not be written.

    `lasting`: whether other windows of the dataset would fail as well.
    """

    code = CODE_BATCH
    lasting = True


_DISK = {
    errno.ENOSPC: "the disk is full; make room and run again",
    errno.EDQUOT: "the quota is used up; make room and run again",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EXDEV: "a folder below it is a mount, or a link to another file system, and a table has "
    "to be on one. Move it onto one",
}
_IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY)  # of one path


@contextmanager
def disk_error(doing: str) -> Iterator[None]:
    """Raise a DatasetError "Cannot <doing>: …" in place of an OSError."""
    try:
        yield
    except OSError as error:
        why = _DISK.get(error.errno or 0) or error.strerror or str(error)
        failure = DatasetError(f"Cannot {doing}: {why}.")
        failure.lasting = error.errno not in _IN_THE_WAY
        raise failure from error


def sentence_of(error: Exception) -> str:
    """Return the sentences on an error that a user reads."""
    if isinstance(error, EtlError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'The system'}: {error.strerror}."
    # P7: the message of an unforeseen error may hold anything.
    return (
        f"mixpanel-etl met with something that it does not expect ({type(error).__name__}). "
        "This is a defect: run it again with --debug, and report what that shows."
    )


def status_of(error: Exception) -> int:
    """Return the exit status of a command that ends with an error."""
    return 2 if isinstance(error, InputError) else 1
