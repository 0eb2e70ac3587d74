"""ARC: the ⌊2 (f / k) (k − f)⌋ longest updates are shortened to the longest of the others.

Adaptive robust clipping: Allouah et al. 2024, arXiv:2405.14432.
"""

from __future__ import annotations

import numpy as np

from ..rule import Facts
from . import Mix
from .clip import shortened


class Arc(Mix):
    def weights(self, facts: Facts) -> np.ndarray:
        norms, k = facts.norms, len(facts.gram)
        others = k - 2 * facts.f * (k - facts.f) // k
        return np.diag(shortened(norms, float(np.sort(norms)[others - 1])))
