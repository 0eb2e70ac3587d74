"""Staleness: an update that comes s versions late moves the model by (1 + s)^-1/2 of what it would have.

The polynomial weight of Xie et al. 2019 (arXiv:1903.03934) and of FedBuff (Nguyen et al. 2022, arXiv:2106.06639).
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..base import Update
from . import Pre


class Staleness(Pre):
    """n_k becomes n_k (1 + s)^-1/2; the rest of n_k counts as a delta of zeros."""

    def apply(self, update: Update) -> Update:
        if not update.staleness:
            return update
        return replace(update, discounted=stale_weight(update.weight, update.staleness))


def stale_weight(num_examples: int, staleness: int) -> int:
    """n_k (1 + s)^-1/2 to the nearest integer, at least 1 if n_k is. In integers: the same on any machine."""
    weight = (math.isqrt(4 * num_examples**2 // (1 + staleness)) + 1) // 2
    return min(num_examples, max(1, weight))
