"""Rounds with noise, simulated: what an epsilon leaves of the accuracy. A plain loop over Trainer. The integers are
those of masked rounds (masking/vector.py), and so is the noise, but for how it is drawn. Masks, which cancel, are left
out.

Few devices may stand for many: the mean of the few is taken for that of the many, and the noise in the sum is divided
by the many. What more devices learn beyond that is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...core.plan import Plan
from ...core.seeds import derived_seed
from ...core.trainer import Trainer
from ...data import Dataset
from ...masking.choice import back
from ...masking.vector import mean, quantize
from ...privacy.correlated import Banded, Memory, next_round
from ...privacy.noise import discrete_gaussian
from .terms import Goal, Proposal

Floats = NDArray[np.float32]
MOST = 100  # devices that are simulated
EXACT = 64.0  # sigma below which noise is drawn exactly; above, a rounded Gaussian has 1/12 more variance: 2e-5 of it


@dataclass(frozen=True)
class Local:
    """A device's training in a round."""

    epochs: int = 1
    batch_size: int = 10
    lr: float = 0.1


def stand_ins(goal: Goal) -> int:
    """How many devices are simulated: at most MOST, and as many for each round of a turn."""
    asked = min(goal.cohort, max(1, MOST // goal.separation))
    return asked * goal.separation


class PrivateRounds:
    """A fleet of as many devices as there are `parts` of the data, which stand for those of the proposal. `trained` of
    them train in a round, in turn; None: the part that the proposal's turns make of them."""

    def __init__(
        self, plan: Plan, params: Floats, dataset: Dataset, parts: Sequence[NDArray[np.intp]], proposal: Proposal, *,
        local: Local, seed: int = 0, noisy: bool = True, trained: int | None = None,
    ) -> None:  # fmt: skip
        self.params = params.copy()
        self._trainer, self._dataset, self._parts = Trainer(plan), dataset, parts
        self._proposal, self._local, self._seed = proposal, local, seed
        goal = proposal.goal
        self._asked = trained or max(1, len(parts) // goal.separation)
        self._noisy = noisy
        self._source = np.random.default_rng(derived_seed(seed, "noise"))
        self._memory = Memory()
        self.clips = [goal.clip]  # of the rounds so far, and of the next

    def run(self, every: int = 1) -> Iterator[float]:
        """Accuracy on the test part after every so many rounds and the last; the dataset must have one."""
        x, y = self._dataset.x_test, self._dataset.y_test
        assert x is not None and y is not None
        rounds = self._proposal.goal.rounds
        for round in range(1, rounds + 1):
            self._round(round)
            if round % every == 0 or round == rounds:
                yield self._trainer.evaluate(self.params, x, y).accuracy or 0.0

    def _round(self, round: int) -> None:
        base = self._proposal.terms
        seed = 0 if base.noise.kind == "banded" else derived_seed(self._seed, "places", round) >> 11
        clip = self.clips[-1]
        terms = msgspec.structs.replace(base, seed=seed, clip=clip, grid=base.grid * (clip / base.clip))
        total = np.zeros(terms.length, np.int64)
        first = (round - 1) % (len(self._parts) // self._asked) * self._asked
        for device in range(first, first + self._asked):
            delta = self._fit(device, round)
            rng = np.random.default_rng(derived_seed(self._seed, "rounding", round, device))
            total += quantize(delta, 1, terms, rng.bytes).q
        found, goal = mean(total, terms), self._proposal.goal
        self.params += found.delta
        within = found.within
        if self._noisy:
            noise = self._noise(round)
            drawn = noise[: terms.coordinates] * (terms.grid / goal.cohort)
            self.params += back(drawn.astype(np.float32), terms)
            if within is not None:
                within += float(noise[terms.at_votes].mean()) / (2 * terms.votes.size * goal.cohort)
        self.clips.append(goal.clipping.after(clip, within))

    def _fit(self, device: int, round: int) -> Floats:
        rows = self._parts[device]
        x, y, local = self._dataset.x_train[rows], self._dataset.y_train[rows], self._local
        seed = derived_seed(self._seed, "fit", round, device)
        delta: Floats = self._trainer.fit(
            self.params, x, y, epochs=local.epochs, batch_size=local.batch_size, lr=local.lr, seed=seed
        ).delta  # fmt: skip
        return delta

    def _noise(self, round: int) -> NDArray[np.int64]:
        terms = self._proposal.terms
        sigma, noise = terms.noise.sigma, terms.noise
        if noise.kind == "independent":
            if sigma < EXACT:
                return discrete_gaussian(sigma, terms.length, self._source.bytes)
            return np.rint(self._source.normal(0.0, sigma, terms.length)).astype(np.int64)
        plan = Banded(sigma, noise.band, noise.separation, noise.rounds, terms.length)
        drawn, self._memory = next_round(plan, self._memory, round, b"", self._source.bytes)
        return drawn
