"""Bucketing: groups of `size` updates, drawn at random, become their means; the last group may be smaller.

Karimireddy et al. 2022, arXiv:2006.09365.

The draw follows from the inner products of all updates: the same for every order of arrival, and nobody knows it before
the last update has come.
"""

from __future__ import annotations

import numpy as np

from ..._core import crc32c
from ...errors import UsageError
from ..rule import Facts, chosen
from . import Mix


class Bucketing(Mix):
    def __init__(self, size: int = 2) -> None:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise UsageError(f"bucket is {size!r}: give the number of updates in a bucket, 1 or more")
        self._size = size

    def out_of(self, rows: int) -> int:
        return -(-rows // self._size)

    def most(self, rows: int) -> int:
        return super().most(self.out_of(rows))

    def weights(self, facts: Facts) -> np.ndarray:
        k = len(facts.gram)
        order = np.random.default_rng(crc32c(facts.gram.tobytes())).permutation(k)
        return np.vstack([chosen(order[first : first + self._size], k) for first in range(0, k, self._size)])
