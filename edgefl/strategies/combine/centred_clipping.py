"""Centred clipping: v ← v + mean of (Δ_k − v) min(1, τ / ‖Δ_k − v‖), from the delta of the round before.

Karimireddy et al. 2021, arXiv:2012.10333.
"""

from __future__ import annotations

import numpy as np

from ...errors import UsageError
from ..base import Site, State, take
from ..rule import Facts, Rule, inner


class CentredClipping(Rule):
    """`tau` is τ; None: the median of ‖Δ_k − v‖, anew in each iteration. State: `center`, (P,) float32."""

    def __init__(self, tau: float | None = None, iterations: int = 1) -> None:
        if tau is not None and (not isinstance(tau, int | float) or isinstance(tau, bool) or not 0 < tau < np.inf):
            raise UsageError(f"tau is {tau!r}: give a number above 0")
        if not isinstance(iterations, int) or isinstance(iterations, bool) or not 1 <= iterations <= 1000:
            raise UsageError(f"iterations is {iterations!r}: give a whole number from 1 to 1000")
        self._tau, self._iterations = tau, iterations
        self._size: int | None = None

    def prepare(self, site: Site) -> None:
        self._size = site.num_params

    def weights(self, facts: Facts) -> np.ndarray:
        """Of v, as a sum of the updates and the anchor."""
        gram = facts.gram
        k = len(gram) - (self.anchor is not None)
        v = np.zeros(len(gram))
        v[k:] = 1.0
        for _ in range(self._iterations):
            with_v = inner(gram, v)
            away = np.sqrt(np.maximum(np.diagonal(gram) - 2 * with_v + inner(v, with_v), 0.0))[:k]
            tau = float(np.median(away)) if self._tau is None else self._tau
            shares = np.minimum(1.0, tau / np.maximum(away, np.finfo(float).tiny))
            v *= 1 - shares.mean()
            v[:k] += shares / k
        return v[None]

    def keep(self, delta: np.ndarray) -> None:
        self.anchor = delta.copy()

    def state(self) -> State:
        return {} if self.anchor is None else {"center": self.anchor}

    def restore(self, state: State) -> None:
        size = len(state["center"]) if self._size is None and "center" in state else self._size or 0
        (self.anchor,) = take(state, center=size)
