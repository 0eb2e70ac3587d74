"""Ditto (Li et al. 2021, arXiv:2012.04221, Algorithm 1): a personal model v beside the shared one, held near it.

    w is trained and sent as without Ditto
    v ← v − η (∇F_k(v) + λ (v − w))        over the same batches, w as it was received; v begins as the first w

λ (v − w) is the pull of FedProx towards where v began in this round, and a constant: λ (v₀ − w).
"""

from __future__ import annotations

import numpy as np

from .rule import Learned, Rule, Work, option, own_slot


class Ditto(Rule):
    """`lam` is λ: at 0 each device learns alone, the larger the nearer to the shared model. Slot: v."""

    passes = 2.0
    makes_model = True

    def __init__(self, lam: float = 0.1) -> None:
        self._lam = option("lam", lam, 0, 1e6)

    def train(self, work: Work) -> Learned:
        shared, before = work.fit(), self.own(work)
        v = work.params if before is None else before
        pull = np.float32(self._lam) * (v - work.params)
        own = work.fit(v, prox_mu=self._lam, correction=pull)
        with np.errstate(over="ignore"):
            slot = own_slot(v + own.delta)
        return Learned(shared.delta, shared.steps, shared.loss, lambda sent, received: slot)

    def own(self, work: Work) -> np.ndarray | None:
        return work.vector("personal")
