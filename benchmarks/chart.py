"""Draw bars with their values as a plain SVG, without fonts, scripts or libraries."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT = 800, 310, 100  # px; the bars lie between, their values on the right
BAR, GAP, HEAD, GROUP = 16, 6, 58, 26
OURS_COLOR, OTHER_COLOR, TEXT, FAINT = "#0b6bcb", "#9aa5b1", "#1f2933", "#cbd2d9"
LETTER = 6.6  # px, of a letter on average


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar; `low` and `high` are the minimum and the maximum of several runs."""

    label: str
    value: float
    low: float
    high: float
    ours: bool = False


Groups = Sequence[tuple[str, Sequence[Bar]]]


def bars(title: str, unit: str, groups: Groups, form: str, *, apart: bool = False) -> str:
    """Draw groups of horizontal bars on one scale from 0, or `apart`, each group on its own scale.

    Each value is printed beside its bar, so that there is no axis.
    """
    whole = max((bar.high for _, each in groups for bar in each), default=0)
    parts, y = [], HEAD
    for name, each in groups:
        most = max(bar.high for bar in each) if apart else whole
        scale = (WIDTH - LEFT - RIGHT) / (most or 1)
        parts.append(_text(12, y + 12, name, bold=True))
        y += GROUP
        for bar in each:
            parts += _bar(bar, y, scale, form)
            y += BAR + GAP
        y += GAP
    axis = f'<path d="M{LEFT} {HEAD - 6}V{y}" stroke="{FAINT}"/>'
    below = f"in {unit}; a line spans all runs"
    head = [_text(12, 24, title, bold=True, size=15), _text(12, 43, below)]
    size = f'width="{WIDTH}" height="{y + 8}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH} {y + 8}">',
            f"<title>{escape(title)}, in {escape(unit)}</title>",
            f'<rect {size} fill="#ffffff"/>',
            '<g font-family="sans-serif">',
            *head,
            axis,
            *parts,
            "</g>\n</svg>\n",
        ]
    )


def _bar(bar: Bar, y: float, scale: float, form: str) -> list[str]:
    color = OURS_COLOR if bar.ours else OTHER_COLOR
    middle = y + BAR / 2
    low, high = LEFT + bar.low * scale, LEFT + bar.high * scale
    return [
        _text(LEFT - 8, y + 12, _short(bar.label), end=True),
        f'<rect x="{LEFT}" y="{y}" width="{bar.value * scale:.1f}" height="{BAR}" fill="{color}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{TEXT}"/>',
        _text(high + 6, y + 12, format(bar.value, form)),
    ]


def _short(label: str) -> str:
    """Shorten a text to the room that it has."""
    room = int((LEFT - 20) / LETTER)
    return label if len(label) <= room else f"{label[: room - 1]}…"


def _text(
    x: float, y: float, text: str, *, bold: bool = False, end: bool = False, size: int = 12
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    anchor = ' text-anchor="end"' if end else ""
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}"'
    return f'<text {place} fill="{TEXT}"{weight}{anchor}>{escape(text)}</text>'
