"""The median of each coordinate (Yin et al. 2018, arXiv:1803.01498): a minority of devices can't pull it far.

It needs every update of a round at once, so it is built on the spill.
"""

from __future__ import annotations

import numpy as np

from edgefl.strategies import Strategy
from edgefl.strategies.combine.spilled import Spilled
from edgefl.strategies.composed import Composed
from edgefl.strategies.server.step import Step


class Median(Spilled):
    """All devices count alike, whatever their number of examples."""

    def rule(self, deltas: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.median(deltas, axis=0, overwrite_input=True)


def median(server_lr: float = 1.0) -> Strategy:
    """w ← w + server_lr · median of the Δ_k."""
    return Composed("example-median", combine=Median(), server=Step(server_lr))
