"""FedRep (Collins et al. 2021, arXiv:2102.07078, Algorithm 1): first the personal head, then the shared representation.

    h_k ← head_epochs of SGD on the head, the representation φ as it was received
    φ_k ← the settings' epochs of SGD on the representation, the head h_k as it is now

Only φ_k is sent; K_k are its steps. The head is what the mask keeps (personal.keep). Without one it is plain training.
"""

from __future__ import annotations

from .rule import Learned, Rule, Work, whole_passes


class FedRep(Rule):
    """`head_epochs`: passes that train the head. The paper has 10 of them, and one of the representation."""

    def __init__(self, head_epochs: float = 1) -> None:
        self._head_epochs = whole_passes("head_epochs", head_epochs)
        self.more_epochs = float(self._head_epochs)

    def train(self, work: Work) -> Learned:
        head = frozenset(work.mask.personal)
        if not head:
            plain = work.fit()
            return Learned(plain.delta, plain.steps, plain.loss)
        body = frozenset(range(len(work.trainer.plan.params))) - head
        mask = work.mask
        with work.trainer.freezing(body) as part:
            first = work.fit(trainer=part, epochs=self._head_epochs)
        start = mask.with_own(work.params, mask.own(work.params + first.delta))
        with work.trainer.freezing(head) as part:
            second = work.fit(start, trainer=part)
        delta = mask.with_own(second.delta, mask.own(start - work.params))
        return Learned(delta, second.steps, second.loss)
