"""The `Accept` header of the Schema Registry: in which form a resource is shown."""

from dataclasses import dataclass

from engine.control.api.problems import Problem, cut

_PREFIX, _SUFFIX = "application/vnd.adobe.", "+json"
_FAMILIES = ("xed", "xdm")
_VERSIONS = ("1", "1.0")  # of every resource
_WORDS = ("id", "link", "v2", "full", "notext", "desc", "flat", "deprecated", "deprecatefield")


@dataclass(frozen=True, slots=True)
class Form:
    """A form of a resource, and the words of the media type that it was asked for with.

    `words` are None where the header is missing or generic, as curl's is.
    """

    words: frozenset[str] | None = None

    def has(self, word: str) -> bool:
        """Return whether the media type has a word, as `full` in `xed-full`."""
        return self.words is not None and word in self.words


def form_of(accept: str) -> Form:
    """Return the form that a header asks for.

    Problem with 406 for a media type of Adobe's that is not known, and for another version than 1.
    """
    for part in accept[:1_000].split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        if not name.startswith(_PREFIX):
            continue
        family, *words = name.removeprefix(_PREFIX).removesuffix(_SUFFIX).split("-")
        if family not in _FAMILIES or not set(words) <= set(_WORDS):
            raise _not_acceptable(accept)
        for each in parameters:
            key, _, value = each.partition("=")
            if key.strip() == "version" and value.strip() not in _VERSIONS:
                raise _not_acceptable(accept, "There is version 1 of each resource alone.")
        return Form(frozenset(words))
    return Form()


def _not_acceptable(accept: str, more: str = "") -> Problem:
    detail = (
        f"The supplied Accept header is not valid: {cut(accept)} - A valid Accept value should "
        f"look like application/vnd.adobe.xed-full+json; version=1. {more}"
    )
    return Problem("1400-406", "Not acceptable", detail.rstrip())
