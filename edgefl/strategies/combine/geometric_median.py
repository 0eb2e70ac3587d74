"""Geometric median: the point with the least sum of distances to all updates, by Weiszfeld's iteration from 0, the
global model (RFA: Pillutla et al. 2022, arXiv:1912.13445).

    z ← Σ β_k Δ_k / Σ β_k,    β_k = 1 / max(ν, ‖Δ_k − z‖)

z is always a sum of updates, so inner products are all that the iteration needs.
"""

from __future__ import annotations

import numpy as np

from ...errors import UsageError
from ..rule import Facts, Rule, inner

LENGTHS = 1e-6  # ν, in median lengths of the updates
ENOUGH = 1e-9  # the iteration ends when no weight changes by more
MOST = 1000


class GeometricMedian(Rule):
    """`nu` is ν; None: a millionth of the median length. `iterations`: exactly so many; None: until it stands."""

    def __init__(self, nu: float | None = None, iterations: int | None = None) -> None:
        if nu is not None and (not isinstance(nu, int | float) or isinstance(nu, bool) or not 0 < nu < np.inf):
            raise UsageError(f"nu is {nu!r}: give a number above 0")
        if iterations is not None and (not isinstance(iterations, int) or not 1 <= iterations <= MOST):
            raise UsageError(f"iterations is {iterations!r}: give a whole number from 1 to {MOST}")
        self._nu, self._iterations = nu, iterations

    def weights(self, facts: Facts) -> np.ndarray:
        gram = facts.gram
        own, weights = np.diagonal(gram), np.zeros(len(gram))
        nu = self._nu or LENGTHS * float(np.median(facts.norms)) or 1.0
        for _ in range(self._iterations or MOST):
            with_z = inner(gram, weights)
            away = np.sqrt(np.maximum(own - 2 * with_z + inner(weights, with_z), 0.0))
            betas = 1 / np.maximum(nu, away)
            before, weights = weights, betas / betas.sum()
            if self._iterations is None and np.abs(weights - before).max() < ENOUGH:
                break
        return weights[None]
