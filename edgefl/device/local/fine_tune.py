"""Fine-tune, then evaluate: what a device makes of each model that it receives, on its own (Yu et al. 2020,
arXiv:2002.04758; Cheng et al. 2021, arXiv:2108.07313).

The shared model is trained and sent as without it. A device's own model is the received one after `epochs` more of
local training, before each evaluation; nothing is kept between rounds.
"""

from __future__ import annotations

import numpy as np

from .rule import Learned, Rule, Work, option, whole_passes


class FineTune(Rule):
    """`lr` 0: the settings' learning rate."""

    makes_model = trains_to_judge = True

    def __init__(self, epochs: float = 1, lr: float = 0.0) -> None:
        self._epochs, self._lr = whole_passes("epochs", epochs), option("lr", lr, 0, 1e6)
        self.more_epochs = float(self._epochs)

    def train(self, work: Work) -> Learned:
        plain = work.fit()
        return Learned(plain.delta, plain.steps, plain.loss)

    def own(self, work: Work) -> np.ndarray | None:
        tuned: np.ndarray = work.params + work.fit(epochs=self._epochs, lr=self._lr or work.train.lr).delta
        return tuned
