"""Values that are planted in data, and what would give them away."""

from __future__ import annotations

import numpy as np

CANARIES = (0.7236381, -1.8190463, 2.4417009)  # no other number here has their bytes or digits


def traces(value: float) -> list[bytes]:
    """What would give `value` away: as float32 and float64 of either order, and its first digits."""
    return [*(np.array(value, kind).tobytes() for kind in ("<f4", ">f4", "<f8", ">f8")), str(abs(value))[:7].encode()]


def assert_untold(told: bytes, where: str = "what was said") -> None:
    for canary in CANARIES:
        for trace in traces(canary):
            assert trace not in told, f"{canary} is in {where}"
