"""Oort (Lai et al. 2021, OSDI, arXiv:2010.06081): devices whose data help most in the time that they take.

A device's score, from its last update, n_k examples with the mean loss F_k in t_k seconds:

    U_k = n_k F_k                                    clipped at the 95th percentile, scaled to 0 ... 1 over the devices
    score = (U_k + sqrt(0.1 ln R / L_k)) · (T / t_k)^alpha where t_k > T          R: this round, L_k: its last one

Of the devices that a round asks, the share `explore` · 0.98^R, at least `least`, has not reported yet; the others are
drawn by score among those with 95 % of the last score that would be among the best. T is a percentile of all t_k: 30,
and 5 more whenever the sum of U over 20 rounds falls below that of the 20 before.

It differs from the paper where a device does not tell as much: U is from the mean loss, not from the mean of squared
losses of single examples, and a device that is new has no speed by which to explore it. Percentile and scores come from
the last hundred rounds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ...history_record import RoundRecord
from ...protocol.round import UNEARNED_ROUNDS
from .rule import Selection, number, weighted

DECAY, CUT, CLIP = 0.98, 0.95, 95.0
WINDOW, FIRST, MORE = 20, 30.0, 5.0  # rounds, and percentiles of the report times


class Oort(Selection):
    """See above."""

    OPTIONS = ("alpha", "explore", "least")

    def __init__(self, alpha: float = 2.0, explore: float = 0.9, least: float = 0.2) -> None:
        super().__init__()
        self._alpha = number("alpha", alpha, 0, 100)
        self._explore, self._least = number("explore", explore, 0, 1), number("least", least, 0, 1)
        self._utilities: dict[int, float] = {}  # of a round's devices, added up

    def learn(self, record: RoundRecord) -> None:
        super().learn(record)
        if total := math.fsum(n * loss for n, loss in record.losses.values()):
            self._utilities[record.round] = total
        oldest = record.round - UNEARNED_ROUNDS
        self._utilities = {round: total for round, total in self._utilities.items() if round > oldest}

    def pick(self, devices: list[str], wanted: int, round: int, rng: random.Random) -> list[str]:
        known = [device for device in devices if device in self.seen]
        fresh = [device for device in devices if device not in self.seen]
        share = max(self._least, self._explore * DECAY**round)
        explored = min(len(fresh), math.ceil(share * wanted))
        explored = max(explored, wanted - len(known))
        scores = self._scores(known, round)
        return rng.sample(fresh, explored) + self._exploit(scores, wanted - explored, rng)

    def _exploit(self, scores: dict[str, float], wanted: int, rng: random.Random) -> list[str]:
        if not wanted:
            return []
        last = sorted(scores.values(), reverse=True)[wanted - 1]
        good = [device for device, score in scores.items() if score >= CUT * last]
        return weighted(good, wanted, lambda device: max(scores[device], 1e-9), rng)

    def _scores(self, devices: list[str], round: int) -> dict[str, float]:
        utilities = {device: self.seen[device].num_examples * self.seen[device].loss for device in devices}
        most = percentile(list(utilities.values()), CLIP)
        clipped = {device: min(utility, most) for device, utility in utilities.items()}
        least = min(clipped.values(), default=0.0)
        spread = (most - least) or 1.0
        preferred = self._preferred_s(round)
        scores = {}
        for device, utility in clipped.items():
            seen = self.seen[device]
            score = (utility - least) / spread + math.sqrt(0.1 * math.log(round) / seen.round)
            if seen.seconds is not None and seen.seconds > preferred:
                score *= (preferred / seen.seconds) ** self._alpha
            scores[device] = score
        return scores

    def _preferred_s(self, round: int) -> float:
        """T."""
        times = [seen.seconds for seen in self.seen.values() if seen.seconds is not None]
        at = FIRST
        oldest = max(2 * WINDOW, (round - UNEARNED_ROUNDS) // WINDOW * WINDOW)
        for end in range(oldest, round, WINDOW):
            at += MORE * (self._total(end) < self._total(end - WINDOW))
        return percentile(times, min(at, 100.0)) if times else math.inf

    def _total(self, end: int) -> float:
        """Of the `WINDOW` rounds up to `end`."""
        return math.fsum(self._utilities.get(round, 0.0) for round in range(end - WINDOW + 1, end + 1))


def percentile(values: Sequence[float], percent: float) -> float:
    """The lowest of the values that is not below so many percent of them; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else 0.0
