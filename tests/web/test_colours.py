"""Text can be read on every ground that it may stand on: WCAG 2.2, 1.4.3. What a browser shows is in `reading.js`; that
cannot show everything at once, such as what is said where another cluster happens to be near."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

STYLE = Path(__file__).parents[2] / "p2premap" / "web" / "page" / "style.css"
LEAST = 4.5
GROUNDS = ("back", "card", "line")
"""Of the page, of tables, and of code."""
SCHEMES = dict(zip(("light", "dark"), re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL), strict=True))


def luminance(colour: str) -> float:
    digits = "".join(2 * digit for digit in colour) if len(colour) == 3 else colour
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_is_never_pale(scheme: str) -> None:
    colours = dict(re.findall(r"--(\w+): #([0-9a-f]+);", SCHEMES[scheme]))
    found = {pair: contrast(*(colours[name] for name in pair)) for pair in product(("ink", "quiet"), GROUNDS)}
    assert {pair: ratio for pair, ratio in found.items() if ratio < LEAST} == {}
