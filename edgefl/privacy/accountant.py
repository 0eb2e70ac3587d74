"""What noise costs: epsilon of so many rounds, and the least sigma for an epsilon. Computed by dp-accounting.

Adjacency: one device's vector becomes zero in every round in which it takes part; who took part is known to both sides.
No amplification by sampling is claimed, since nothing enforces a secret draw: a device that may take part is accounted
as if it did, as often as `separation` allows.

Every mechanism here is a Gaussian or a discrete one, and satisfies rho-zCDP with rho = sensitivity² / (2 sigma²):
discrete Gaussian noise on whole numbers by theorem 4 of Canonne, Kamath, Steinke 2020, correlated noise as the one
Gaussian mechanism that all its rounds are (correlated.py). Rho adds up over rounds, runs and changes of the terms, and
dp-accounting turns it into (epsilon, delta). For Gaussian noise alone the exact curve would be up to a tenth lower;
discrete noise is not below that curve, so one bound that holds for both is used.

dp-accounting is the extra `privacy`, loaded when it is needed: a device never needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from typing import Any, Literal, Protocol

from ..errors import UsageError
from .correlated import check_band, sensitivity
from .noise import rational

# The best order is near 1 + sqrt(ln(1/delta) / rho): finer than the library's, whose sigma would be 1 % larger.
ORDERS = (
    *(1 + k / 100 for k in range(1, 100)), *(2 + k / 10 for k in range(90)), *range(11, 64),
    *(64 * 1.1**k for k in range(100)),
)  # fmt: skip


class NoiseTerms(Protocol):
    """What the terms of a round say of its noise; protocol/terms.py has it."""

    @property
    def kind(self) -> Literal["none", "independent", "banded"]: ...
    @property
    def sigma(self) -> float: ...
    @property
    def band(self) -> int: ...
    @property
    def separation(self) -> int: ...
    @property
    def rounds(self) -> int: ...


@dataclass(frozen=True)
class Mechanism:
    """The noise of the rounds. `norm2`: the bound on the square of a vector's norm, in units of the grid squared, as
    `sigma` is in units of the grid. `separation` 0 or 1: a device may take part in every round. A band needs `rounds`,
    all of them, fixed beforehand; independent noise ignores band and rounds."""

    kind: Literal["independent", "banded"]
    sigma: float
    norm2: int
    separation: int = 0
    band: int = 1
    rounds: int = 0

    def __post_init__(self) -> None:
        rational(self.sigma)  # or UsageError
        if self.norm2 < 1 or self.separation < 0:
            raise UsageError(f"norm2 is {self.norm2} and separation {self.separation}: give at least 1, and at least 0")
        if self.kind == "banded":
            check_band(self.band, self.separation, self.rounds)

    @classmethod
    def of(cls, noise: NoiseTerms, norm2: int) -> Mechanism:
        """That of a round's terms. Aggregator and helpers both build it here, or they would not agree to the bit."""
        assert noise.kind != "none"
        return cls(noise.kind, noise.sigma, norm2, noise.separation, max(1, noise.band), noise.rounds)

    def rho(self, rounds: int, noisy: int | None = None) -> float:
        """Of so many rounds in a row for the device that takes part in as many of them as it can, `noisy` at most if
        others were abandoned. What correlated noise of later rounds tells of these is in it."""
        times = -(-rounds // max(1, self.separation))
        times = times if noisy is None else min(times, noisy)
        if times < 0:
            raise UsageError(f"rounds is {rounds}: give 0 or more")
        if self.kind == "independent":
            return self.norm2 * times / (2 * self.sigma**2)
        if rounds > self.rounds:
            raise UsageError(f"round {rounds} of {self.rounds}: correlated noise is accounted for these rounds alone")
        return self.norm2 * sensitivity(self.band, times) ** 2 / (2 * self.sigma**2)


def epsilon(rho: float, delta: float) -> float:
    """The epsilon of what satisfies rho-zCDP, at `delta`; 0 for a rho of 0."""
    _check_delta(delta)
    return _epsilon(rho, delta) if rho > 0 else 0.0


@lru_cache(maxsize=64)  # a stretch asks for the same one every round, and it takes sixty turns of the library
def rho_of(spent: float, delta: float) -> float:
    """The rho of what has spent an epsilon of `spent` at `delta`: the least one whose epsilon is no smaller."""
    _check_delta(delta)
    return _least(lambda rho: epsilon(rho, delta) >= spent) if spent > 0 else 0.0


def after(spent: float, rho: float, delta: float) -> float:
    """Epsilon once rho more is spent, if `spent` was spent before."""
    return max(spent, epsilon(rho_of(spent, delta) + rho, delta))


def until(spent: float, rho: float, delta: float) -> float:
    """Epsilon before rho was spent, if `spent` is what it is since; 0 if rho alone is more."""
    return epsilon(max(0.0, rho_of(spent, delta) - rho), delta)


def load() -> None:
    """UsageError, which says how to install it, if dp-accounting is not there."""
    _library()


def smallest_sigma(target: float, delta: float, rounds: int, like: Mechanism) -> float:
    """The least sigma with which `rounds` rounds `like` that mechanism, whose own sigma is ignored, spend at most
    `target`."""
    if not 0 < target < math.inf:
        raise UsageError(f"epsilon is {target!r}: give more than 0")
    _check_delta(delta)
    if rounds < 1:
        raise UsageError(f"rounds is {rounds}: give at least 1")
    one = like.rho(rounds) * like.sigma**2  # rho times sigma²
    most = 1 / _least(lambda inverse: epsilon(1 / inverse, delta) <= target)
    return math.sqrt(one / most)


def _least(holds: Callable[[float], bool]) -> float:
    """The least number, but for one part in 2^40, for which a condition holds that goes on holding above it."""
    low, high = 2.0**-40, 2.0**-40
    while not holds(high):
        low, high = high, high * 4
        if high > 2.0**60:
            raise UsageError("no noise gives this epsilon: choose another")
    while high - low > high * 2.0**-40:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise UsageError(f"delta is {delta!r}: give a number between 0 and 1, less than one over the number of devices")


def _epsilon(rho: float, delta: float) -> float:
    dp_accounting = _library()
    accountant = dp_accounting.rdp.RdpAccountant(ORDERS)
    accountant.compose(dp_accounting.ZCDpEvent(rho))
    return float(accountant.get_epsilon(delta))


@cache
def _library() -> Any:
    try:
        import_module("dp_accounting.rdp")
        return import_module("dp_accounting")
    except ImportError:
        raise UsageError(
            "noise is accounted by dp-accounting, which is not installed: pip install 'edgefl-toolkit[privacy]'"
        ) from None
