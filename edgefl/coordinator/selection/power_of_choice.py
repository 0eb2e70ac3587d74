"""Power of choice (Cho et al. 2020, arXiv:2010.01243): draw d candidates, ask those with the highest loss.

Candidates are drawn with a probability proportional to n_k. Their loss is the one that they reported last, the paper's
variant π_rpow-d: no candidate is polled. A device that has not reported yet comes before all others, and counts as one
with the median number of examples in the draw.
"""

from __future__ import annotations

import math
import random
from statistics import median_low

from ...errors import UsageError
from .rule import Selection, weighted


class PowerOfChoice(Selection):
    """`d`: the number of candidates, at least as many as are asked; None: twice as many."""

    OPTIONS = ("d",)

    def __init__(self, d: int | None = None) -> None:
        super().__init__()
        if d is not None and (isinstance(d, bool) or not isinstance(d, int) or not 1 <= d <= 10**9):
            raise UsageError(f"rounds.selection: d is {d!r}: give a whole number of candidates")
        self._d = d

    def pick(self, devices: list[str], wanted: int, round: int, rng: random.Random) -> list[str]:
        seen = self.seen
        usual = median_low([each.num_examples for each in seen.values()] or [1])
        sizes = {device: seen[device].num_examples if device in seen else usual for device in devices}
        count = max(wanted, 2 * wanted if self._d is None else self._d)
        candidates = weighted(devices, count, sizes.__getitem__, rng)
        losses = {device: seen[device].loss if device in seen else math.inf for device in candidates}
        return sorted(candidates, key=losses.__getitem__, reverse=True)[:wanted]
