"""Usual: a number that a device tells of itself is believed within `TIMES` the median of the devices, either way."""

from __future__ import annotations

TIMES = 10


def believed(value: float, usual: float) -> float:
    """`value`, as far as it is believed where the median is `usual`."""
    return min(max(value, usual / TIMES), usual * TIMES)
