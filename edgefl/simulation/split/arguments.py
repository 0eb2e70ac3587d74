"""What may stand after the colon of a partition: a number in bounds, checked here before any data are there."""

from __future__ import annotations

import math
from contextlib import suppress

from ...errors import UsageError

MOST = 1e9  # beyond it, sums of floats come to nothing
# Name -> whether the number is whole, the least and the most.
BOUNDS: dict[str, tuple[bool, float, float]] = {
    "shards": (True, 1, MOST),
    "labels": (True, 1, MOST),
    "similarity": (False, 0, 100),
    "dirichlet": (False, 1e-6, MOST),
    "label-shift": (False, 1e-6, MOST),
    "unbalanced": (False, 0, MOST),
    "quantity": (False, 1e-6, MOST),
    "windows": (True, 1, MOST),
}


def whole(name: str, text: str) -> int:
    """The argument of a partition that takes a whole number; UsageError."""
    return int(number(name, text))


def number(name: str, text: str) -> float:
    """The argument of a partition; UsageError says what it may be."""
    is_whole, least, most = BOUNDS[name]
    with suppress(ValueError):
        value = int(text) if is_whole else float(text)
        if least <= value <= most and math.isfinite(value):
            return value
    bounds = f"of at least {least:g}" if most == MOST else f"from {least:g} to {most:g}"
    noun = "a whole number" if is_whole else "a number"
    raise UsageError(f"partition '{name}:{text}': give {noun} {bounds} after the colon")
