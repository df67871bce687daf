"""The expressions that docs/mapping.md shows give what it shows."""

import json
import re

import pytest

from engine.mapping.expression.evaluator import FOLDING
from engine.mapping.expression.frame import MOST_WORK
from engine.mapping.expression.syntax import LONGEST
from engine.mapping.expression.values import DEEPEST, MOST
from engine.mapping.expression.values import LONGEST as LONGEST_TEXT
from engine.sync import preview as previews
from engine.sync.pull import Rules
from tests.support.pages import ROOT

TEXT = (ROOT / "docs" / "mapping.md").read_text("utf-8")
ROWS = [line.strip("| ").split(" | ") for line in re.findall(r"^\| `.*", TEXT, re.MULTILINE)]
TYPES = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "date": {"type": "string", "format": "date"},
    "map": {
        "type": "object",
        "additionalProperties": {
            "type": "array",
            "items": {"type": "object", "properties": {"id": {"type": "string"}}},
        },
    },
}


@pytest.mark.parametrize("row", ROWS, ids=[row[-1] for row in ROWS])
def test_examples(row: list[str]) -> None:
    """Each example, in a preview of a mapping set that has it as its rule."""
    source, kind, properties, value = (cell.strip("`") for cell in row[:4])
    mapping = {"sourceType": "EXPRESSION", "source": source, "destination": "made"}
    rules = Rules(
        ("m", {"mappings": [mapping]}),
        ("s", {"type": "object", "properties": {"made": TYPES[kind]}}),
    )
    event = {"event": "e", "properties": {"time": 1_704_067_205} | json.loads(properties)}
    [found] = previews.preview(rules, [json.dumps(event).encode()])
    assert found == {"data": {"made": json.loads(value)}, "errors": None}


def test_ten_examples() -> None:
    """The page has ten of them."""
    assert len(ROWS) == 10


def test_limits() -> None:
    """The limits on the page are those of the code."""
    limits = (LONGEST, LONGEST_TEXT, MOST, DEEPEST, MOST_WORK, previews.MOST_WORK)
    paragraph = TEXT[TEXT.index("The work for one event") :]
    assert [f"{limit:,}" for limit in limits] == re.findall(r"\b\d[\d,]+\b", paragraph)[:6]
    assert FOLDING < MOST_WORK
