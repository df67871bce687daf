"""What went wrong, in the form of Flow Service's error bodies.

The codes are those of its error catalogue (Adobe's "Flow Service API error messages"); what is no
resource of Flow Service's has them too, so that a client needs one way to read them.
"""

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from engine.errors import (
    EtagMismatch,
    EtlError,
    InputError,
    InvalidResource,
    NotFound,
    ResourceInUse,
)

Json = dict[str, Any]
QUOTED = 100  # characters of a client's text in a sentence
LONGEST = 2_000  # characters of a sentence, which an answer has three times
_TYPE = "https://ns.adobe.com/aep/errors/FLOW-"


class Problem(Exception):
    """An answer that is no success: a code as "1403-400", whose end is the HTTP status."""

    def __init__(self, code: str, title: str, detail: str, **more: str) -> None:
        detail = cut(_tame(detail), LONGEST)
        super().__init__(detail)
        self.code, self.title, self.detail = code, title, detail
        self.more = {name: cut(text) for name, text in more.items()}

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.code.rpartition("-")[2])

    def body(self) -> Json:
        """The whole body. `request-id` tells answers apart, and says nothing else."""
        report = {"detailed-message": self.detail, "request-id": str(uuid4()), **self.more}
        return {
            "type": f"{_TYPE}{self.code}",
            "title": self.title,
            "status": self.status,
            "report": report,
            "errorMessage": self.detail,
            "errorDetails": self.detail,
        }


def _tame(detail: str) -> str:
    """A sentence without a word that only a client can have written: those in quotes have at most
    QUOTED characters, and paths of files, which are ours, three times as many.
    """
    return " ".join(
        cut(word, QUOTED + 2 if word[:1] in ("'", '"') else 3 * QUOTED)
        for word in detail[: 20 * LONGEST].split(" ")
    )


def cut(text: object, most: int = QUOTED) -> str:
    """A text as it can stand in a sentence: the beginning of one that is long."""
    shown = str(text)
    return shown if len(shown) <= most else f"{shown[:most]}…"


def invalid(code: str, detail: str) -> Problem:
    """A request that can be mended."""
    return Problem(code, "Invalid request", detail)


def unsupported(operation: object, allowed: Iterable[str]) -> Problem:
    """An operation that there is not."""
    return invalid(
        "1434-400",
        f"Unsupported operation '{cut(operation)}' received. Please use one of the supported "
        f"operation types ({', '.join(allowed)}) and try again.",
    )


def problem_of(error: EtlError) -> Problem:
    """The answer for an error of the core; its words are plain sentences without a secret."""
    if isinstance(error, NotFound):
        detail = (
            f"The requested {error.kind} resource {cut(error.id)} is not found. "
            "Verify the resource ID before trying again."
        )
        return Problem("1439-404", "Resource not found", detail, id=error.id, type=error.kind)
    if isinstance(error, EtagMismatch):
        detail = (
            f"The supplied version '{cut(error.given)}' does not match the current version on "
            f"entity '{error.current}'. Please ensure that the supplied version matches the "
            "current version on entity and try again."
        )
        return Problem("1404-412", "Version not matching", detail)
    if isinstance(error, ResourceInUse):
        code = "1418-400" if error.kind == "connections" else "1447-400"
        return invalid(code, f"{error} Delete that first.")
    if isinstance(error, InvalidResource):
        return invalid(error.number, str(error))
    if isinstance(error, InputError):
        return invalid("1400-400", str(error))
    return Problem("1400-500", "Internal Error", str(error))
