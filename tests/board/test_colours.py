"""Text can be read in both themes: WCAG's contrast of 4.5 to 1 for text, 3 to 1 for marks."""

from __future__ import annotations

import re

import pytest

from edgefl.board import page

TEXTS = ("ink", "soft", "bad", "rest")
MARKS = ("accent", "good", "busy", "gone", "second")


def themes() -> dict[str, dict[str, str]]:
    """The colours of each theme. The dark one stands twice, for the system's wish and for the reader's."""
    css = page.asset("board.css").decode()
    blocks = re.findall(r"(:root[^{]*)\{([^}]*--paper[^}]*)\}", css)
    found = {who.strip(): dict(re.findall(r"--([\w-]+): (#\w{6})", body)) for who, body in blocks}
    light, dark, by_system = found.values()
    assert dark == by_system
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_stand_out(theme):
    colours = themes()[theme]
    for ground in ("paper", "card", "hover"):
        for name in TEXTS:
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for name in MARKS:
            assert contrast(colours[name], colours[ground]) >= 3, (name, ground)
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    assert contrast(colours["ink"], colours["rest-soft"]) >= 4.5
