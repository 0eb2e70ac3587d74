"""NNM: each update becomes the mean of the k − f updates nearest to it, itself among them.

Nearest neighbour mixing: Allouah et al. 2023, arXiv:2302.01772.
"""

from __future__ import annotations

import numpy as np

from ..rule import Facts, chosen, smallest
from . import Mix


class Nnm(Mix):
    fills = True

    def weights(self, facts: Facts) -> np.ndarray:
        k = len(facts.gram)
        return np.vstack([chosen(smallest(away, k - facts.f), k) for away in facts.squares])
