"""Errors as Flow Service's error bodies, with the codes of its error catalogue.

The other APIs here answer in the same form, so that a client needs one way to read errors.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

from fastapi.responses import JSONResponse

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
LONGEST = 2_000  # characters of a sentence, which a response has three times
_TYPE = "https://ns.adobe.com/aep/errors/FLOW-"


class Problem(Exception):
    """An error response: a code as "1403-400", whose end is the HTTP status."""

    def __init__(self, code: str, title: str, detail: str, **more: str) -> None:
        detail = cut(_shorten_quotes(detail), LONGEST)
        super().__init__(detail)
        self.code, self.title, self.detail = code, title, detail
        self.more = {name: cut(text) for name, text in more.items()}

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.code.rpartition("-")[2])

    def body(self) -> Json:
        """Return the body, with a random `request-id`."""
        report = {"detailed-message": self.detail, "request-id": str(uuid4()), **self.more}
        return {
            "type": f"{_TYPE}{self.code}",
            "title": self.title,
            "status": self.status,
            "report": report,
            "errorMessage": self.detail,
            "errorDetails": self.detail,
        }


def _shorten_quotes(detail: str) -> str:
    """Shorten the words of a sentence that a client wrote.

    A word in quotes keeps QUOTED characters; others, which may be paths, three times as many.
    """
    return " ".join(
        cut(word, QUOTED + 2 if word[:1] in ("'", '"') else 3 * QUOTED)
        for word in detail[: 20 * LONGEST].split(" ")
    )


def cut(text: object, most: int = QUOTED) -> str:
    """Return a text with at most `most` characters, as it can stand in a sentence."""
    shown = str(text)
    return shown if len(shown) <= most else f"{shown[:most]}…"


def invalid(code: str, detail: str) -> Problem:
    """Return the error for a request that its client can correct."""
    return Problem(code, "Invalid request", detail)


def empty_body() -> Problem:
    """Return the error for a missing body."""
    return invalid(
        "1405-400",
        "The request body cannot be null or empty. Please provide a request body and try again.",
    )


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the response for an error."""
    return JSONResponse(problem.body(), problem.status, headers)


def unsupported(operation: object, allowed: Iterable[str]) -> Problem:
    """Return the error for an unknown operation."""
    return invalid(
        "1434-400",
        f"Unsupported operation '{cut(operation)}' received. Please use one of the supported "
        f"operation types ({', '.join(allowed)}) and try again.",
    )


def problem_of(error: EtlError) -> Problem:
    """Return the response for an error of the core, whose sentence holds no secret."""
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
