"""APFL (Deng et al. 2020, arXiv:2003.13461, Algorithm 1): a personal model v, mixed with the shared one by a learned α.

    v̄ = α v + (1 − α) w                    what the device uses: w as it is received, or as far as it is trained
    w ← w − η ∇F(w; ξ)                     plain SGD; its delta is sent
    v ← v − η α ∇F(v̄; ξ)                  the same batch ξ, v̄ from before the step
    α ← α − η ⟨v − w, ∇F(v̄; ξ)⟩          after the first step of a round, v and w from before it; within 0 to 1

v begins as the first w. Running statistics are not mixed: v̄ has those that were measured with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from ...core.trainer import LocalResult
from .rule import Learned, Rule, Work, option, own_slot


class Apfl(Rule):
    """`alpha` is the first α; `adapt` 0 keeps it. Slot: v and α."""

    passes = 2.0
    makes_model = True

    def __init__(self, alpha: float = 0.5, adapt: float = 1) -> None:
        self._alpha, self._adapts = np.float32(option("alpha", alpha, 0, 1)), bool(adapt)

    def train(self, work: Work) -> Learned:
        trained = _trained(work)
        v, alpha = self._kept(work) or (work.params.copy(), self._alpha)
        w, first, losses = work.params.copy(), alpha, []
        for number, batch in enumerate(_batches(work)):
            shared = _step(work, w, batch, number)
            own = _step(work, _mix(v, w, alpha, trained), batch, number)  # its delta is −η ∇F(v̄)
            if number == 0 and self._adapts:
                slope = ((v - w)[:trained] * own.delta[:trained]).sum(dtype=np.float64)  # in one order, unlike np.dot
                first = np.float32(np.clip(alpha + slope, 0, 1))
            w += shared.delta
            v[:trained] += alpha * own.delta[:trained]
            v[trained:] += own.delta[trained:]
            alpha = first
            losses.append((shared.loss, len(batch)))
        loss = sum(value * n for value, n in losses) / sum(n for _, n in losses)
        slot = own_slot(np.append(v, alpha))
        return Learned(w - work.params, len(losses), loss, lambda sent, received: slot)

    def own(self, work: Work) -> np.ndarray | None:
        kept = self._kept(work)
        return None if kept is None else _mix(kept[0], work.params, kept[1], _trained(work))

    def _kept(self, work: Work) -> tuple[np.ndarray, np.float32] | None:
        found = work.vector("personal", len(work.params) + 1)
        return None if found is None else (found[:-1].copy(), np.float32(found[-1]))


def _trained(work: Work) -> int:
    return work.trainer.plan.num_trainable


def _batches(work: Work) -> Iterator[np.ndarray]:
    """Indices of the examples of each step: in each epoch all of them, in another order."""
    train, n, rng = work.train, len(work.shares.x), np.random.default_rng(work.seed)
    size = n if train.batch_size == "all" else min(n, train.batch_size)
    orders = (rng.permutation(n) for _ in range(train.epochs))
    batches = (order[start : start + size] for order in orders for start in range(0, n, size))
    return islice(batches, train.max_steps)


def _step(work: Work, start: np.ndarray, batch: np.ndarray, number: int) -> LocalResult:
    train, shares = work.train, work.shares
    work.check()
    return work.trainer.fit(
        start, shares.x[batch], shares.y[batch], batch_size="all", lr=train.lr, weight_decay=train.weight_decay,
        seed=work.seed + number,
    )  # fmt: skip


def _mix(v: np.ndarray, w: np.ndarray, alpha: np.float32, trained: int) -> np.ndarray:
    mixed: np.ndarray = v.copy()
    mixed[:trained] = alpha * v[:trained] + (1 - alpha) * w[:trained]
    return mixed
