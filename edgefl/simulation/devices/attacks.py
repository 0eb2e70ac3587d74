"""Attacks: what simulated devices that collude send in the place of their updates (adversary.py says when, and how).

The adversary knows the strategy, and the honest updates of the round as the aggregator decodes them. μ and σ are the
honest deltas' mean and standard deviation, coordinate by coordinate, each device counting once.

    sign-flip    −c μ
    ipm          −c μ, with a larger c (inner-product manipulation: Xie et al. 2019, arXiv:1903.03936)
    alie         μ + c σ (a little is enough: Baruch et al. 2019, arXiv:1902.06156)
    opt-ipm, opt-alie    with the c that moves the round's result furthest from μ (Shejwalkar and Houmansadr 2021)
    mimic        a copy of one honest device's delta (Karimireddy et al. 2022, arXiv:2006.09365)
    gaussian     Gaussian noise, of c times the root mean square of μ
    inf          the largest delta that is taken
    label-flip   the honest delta of a device whose labels y are C − 1 − y
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...errors import UsageError, nearest


class Kind(NamedTuple):
    """What a kind does, with the size that it has unless a spec says otherwise."""

    size: float
    text: str


KINDS = {
    "sign-flip": Kind(1.0, "send the mean of the honest updates, SIZE times back"),
    "ipm": Kind(2.0, "the same, further back"),
    "alie": Kind(1.5, "send the mean and SIZE standard deviations of the honest updates"),
    "opt-ipm": Kind(12.0, "ipm with the size that does most harm, found in SIZE trials"),
    "opt-alie": Kind(12.0, "alie with the size that does most harm, found in SIZE trials"),
    "mimic": Kind(1.0, "all copy the honest device number SIZE"),
    "gaussian": Kind(10.0, "send noise, SIZE times as long as the mean of the honest updates"),
    "inf": Kind(1.0, "send updates as long as is allowed"),
    "label-flip": Kind(1.0, "train with wrong labels"),
}
HELP = "attack:KIND:P[:SIZE]: the share P of the devices know the honest updates of each round, and " + "; ".join(
    f"{kind} (SIZE {KINDS[kind].size:g}) {KINDS[kind].text}" for kind in KINDS
)
FIRST, SHRINK = 2.0, 0.6  # of the search for the best size: the first step, and what is left of one that was in vain


@dataclass(frozen=True)
class Attack:
    """`share` of the devices attack, by the rule `kind`."""

    kind: str
    share: float
    size: float

    @classmethod
    def parse(cls, item: str) -> Attack:
        """Read `attack:KIND:P[:SIZE]`; UsageError says what is off."""
        _, kind, *numbers = (*item.split(":"), "")
        numbers = [number for number in numbers if number]
        if kind not in KINDS:
            raise UsageError(f"unknown attack {kind!r}: {nearest(kind, KINDS)}")
        try:
            share, size, *rest = [float(number) for number in numbers] + [KINDS[kind].size]
        except ValueError:
            raise UsageError(
                f"fault {item!r} wants numbers: write attack:{kind}:0.2 or attack:{kind}:0.2:{KINDS[kind].size:g}"
            ) from None
        if not 0 <= share < 1 or not 0 < size < math.inf or len(rest) > 1:
            raise UsageError(f"fault {item!r}: a share from 0 to below 1, then one positive number")
        return cls(kind, share, size)


@dataclass(frozen=True)
class Known:
    """What the adversary knows when it attacks: `honest` yields the honest deltas, (P,) float32 each, by device.
    `judge` gives the distance from their mean to which the round's result moves if all attackers send this delta.
    `capped` makes a delta as short as admission wants it."""

    honest: Callable[[], Iterator[np.ndarray]]
    judge: Callable[[np.ndarray], float]
    capped: Callable[[np.ndarray], np.ndarray]
    seed: int

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """μ and σ, (P,) float64 each."""
        count, total, squares = 0, np.zeros(0), np.zeros(0)
        for delta in self.honest():
            wide = delta.astype(np.float64)
            total, squares = (total + wide, squares + wide**2) if count else (wide, wide**2)
            count += 1
        mean = total / count
        return mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0))


Rule = Callable[[float, Known, np.ndarray, np.ndarray], np.ndarray]  # size, ..., μ, σ


def craft(attack: Attack, known: Known) -> np.ndarray:
    """The delta that all attackers send, (P,) float32; not capped yet. Not for label-flip, which only trains."""
    mean, deviation = known.moments()
    return RULES[attack.kind](attack.size, known, mean, deviation).astype(np.float32)


def _back(size: float, known: Known, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return -size * mean


def _alie(size: float, known: Known, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return mean + size * deviation


def _mimic(size: float, known: Known, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    delta = mean
    for place, honest in enumerate(known.honest(), start=1):
        delta = honest
        if place >= size:
            break
    return delta


def _gaussian(size: float, known: Known, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    rms = math.sqrt(float(np.mean(mean**2)))
    noise: np.ndarray = np.random.default_rng(known.seed).standard_normal(len(mean)) * (size * rms)
    return noise


def _inf(size: float, known: Known, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return np.full(len(mean), 1e30)


def _best(rule: Rule) -> Rule:
    """`rule` with the size that moves the result furthest, in `size` trials."""

    def crafted(size: float, known: Known, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        def harm(factor: float) -> float:
            return known.judge(known.capped(rule(factor, known, mean, deviation).astype(np.float32)))

        return rule(furthest(harm, max(2, int(size))), known, mean, deviation)

    return crafted


def furthest(harm: Callable[[float], float], trials: int) -> float:
    """The factor ≥ 0 with the most harm that a search in so many trials finds: steps double as long as that is worth
    it; from then on, after each one in vain, they shrink and turn round."""
    best, most = 0.0, harm(0.0)
    step, grows = FIRST, True
    for _ in range(trials - 1):
        here = harm(max(0.0, best + step))
        better = here > most
        if better:
            best, most = max(0.0, best + step), here
        grows = grows and better
        step *= 2 if grows else 1 if better else -SHRINK
    return best


RULES: dict[str, Rule] = {
    "sign-flip": _back,
    "ipm": _back,
    "alie": _alie,
    "opt-ipm": _best(_back),
    "opt-alie": _best(_alie),
    "mimic": _mimic,
    "gaussian": _gaussian,
    "inf": _inf,
}


def flipped(labels: np.ndarray, classes: int) -> np.ndarray:
    """y becomes C − 1 − y."""
    wrong: np.ndarray = (classes - 1 - labels).astype(labels.dtype)
    return wrong
