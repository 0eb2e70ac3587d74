"""What to choose for rounds with noise, from an epsilon: k, m, sigma, band, separation; and how large that noise is."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import UsageError
from ...masking.propose import propose as numbers_of
from ...privacy.accountant import Mechanism, smallest_sigma
from ...privacy.clipping import RATE, Clipping
from ...privacy.correlated import MAX_BAND, prefix_error, sensitivity
from ...protocol.terms import Noise, Party, Terms
from ...settings import Settings, files
from ...settings.privacy import PrivacySettings
from ...settings.render import dump

ROUNDING = 0.02  # that coarse numbers, whose norms are longer, may add to the noise
LEAST = 5  # devices in a sum, where there are as many
_KEYS = [base64.b64encode(bytes([key]) * 32).decode() for key in (0, 1)]
_NOWHERE: dict[str, Any] = {
    "federation": "proposal", "run": "0" * 16, "round": 0, "version": 0, "model_sha256": "0" * 64, "manifest": "0" * 16,
    "seed": 0, "helpers": (Party("helper", 0, *_KEYS),),
}  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """`cohort` of `devices` take part in each of `rounds` rounds, in turn. `share`: of the params a round sends.
    `noise` "auto" is what leaves less in the model. `quantile` and `rate` are of adaptive clipping, which begins at
    `clip`; None: the clip is fixed."""

    rounds: int
    devices: int
    epsilon: float
    params: int
    cohort: int
    delta: float = 1e-5
    clip: float = 1.0
    share: float = 1.0
    noise: Literal["auto", "independent", "banded"] = "auto"
    quantile: float | None = None
    rate: float = RATE

    @property
    def clipping(self) -> Clipping:
        """How the clip moves, if it does."""
        return Clipping(self.clip, self.quantile, self.rate)

    @property
    def separation(self) -> int:
        """Rounds from one participation of a device to its next."""
        return self.devices // self.cohort

    @property
    def settings(self) -> dict[str, Any]:
        """What `[privacy]` says of it, word for word."""
        moving = {} if self.quantile is None else {"clip_quantile": self.quantile, "clip_rate": self.rate}
        return {"share": self.share, "clip": self.clip, **moving}


@dataclass(frozen=True)
class Proposal:
    """`multiplier`: sigma over the norm of the longest vector, `[privacy] sigma`. The noise in the mean delta of a
    round is `in_param` in each number that is sent, and `in_round` clips long; in the sum of all rounds it is
    `in_model` clips long, on the average over rounds; and `in_share` in the share of votes. A clip that moves is the
    first one here. An update as long as the clip has `typical` in each number."""

    goal: Goal
    terms: Terms
    multiplier: float

    @property
    def in_param(self) -> float:
        scale = self.terms.params / self.terms.coordinates  # of the numbers that a round sends, in its mean
        return self.terms.noise.sigma * self.terms.grid / self.goal.cohort * scale

    @property
    def typical(self) -> float:
        return self.goal.clip / math.sqrt(self.goal.params)

    @property
    def in_round(self) -> float:
        return self.in_param * math.sqrt(self.terms.coordinates) / self.goal.clip

    @property
    def in_model(self) -> float:
        return self.in_round * prefix_error(max(1, self.terms.noise.band), self.goal.rounds)

    @property
    def in_share(self) -> float:
        votes = self.terms.votes
        return self.terms.noise.sigma / (2 * votes.size * math.sqrt(votes.copies) * self.goal.cohort)

    @property
    def settings(self) -> dict[str, Any]:
        """What aggregator.toml says of it. Sigma is rounded up: with less, the last round would be above the budget."""
        goal, terms, noise = self.goal, self.terms, self.terms.noise
        privacy = {
            "masked": True, "least": terms.least, "most": terms.most, "bits": terms.bits, **goal.settings,
            "noise": noise.kind, "sigma": math.ceil(self.multiplier * 1e4) / 1e4, "separation": noise.separation,
            **({"band": noise.band} if noise.band else {}), "budget": goal.epsilon, "delta": goal.delta,
        }  # fmt: skip
        return {"privacy": privacy, "rounds": {"rounds": goal.rounds}}

    def to_toml(self) -> str:
        """The same in TOML."""
        return dump(self.settings).strip()


def propose(goal: Goal) -> Proposal:
    """The proposal with the least noise in the model; UsageError."""
    if not 2 <= goal.cohort <= goal.devices:
        raise UsageError(f"cohort is {goal.cohort}: give 2 to {goal.devices} devices, as many as there are")
    if goal.delta * goal.devices >= 1:
        raise UsageError(
            f"delta is {goal.delta:g} and devices {goal.devices}: at one over the number of devices or more, showing "
            "one device's data whole would pass; give less"
        )
    files.build(PrivacySettings, goal.settings)
    band = _band(goal)
    kind: Literal["independent", "banded"] = "banded" if band else "independent"
    like = Mechanism(kind, 1.0, 1, goal.separation, max(1, band), goal.rounds)
    multiplier = smallest_sigma(goal.epsilon, goal.delta, goal.rounds, like)
    noise = Noise(kind, separation=goal.separation, band=band, rounds=goal.rounds if band else 0)
    finest = _fitted(goal, noise, multiplier, 32)
    if finest is None:
        raise UsageError(f"32 bits are too few for {goal.cohort} devices and this noise: raise epsilon")
    for bits in range(8, 32):
        terms = _fitted(goal, noise, multiplier, bits)
        if terms is not None and terms.noise.sigma * terms.grid <= (1 + ROUNDING) * finest.noise.sigma * finest.grid:
            return _allowed(Proposal(goal, terms, multiplier))
    return _allowed(Proposal(goal, finest, multiplier))


def _allowed(found: Proposal) -> Proposal:
    """The proposal, which an aggregator can run; UsageError."""
    try:
        files.build(Settings, found.settings)
    except UsageError as error:
        faults = str(error).replace("\n", "; ")
        raise UsageError(f"no aggregator runs such rounds: {faults}; choose another cohort or epsilon") from None
    return found


def _band(goal: Goal) -> int:
    """The band that leaves the least noise in the model; 0: independent noise."""
    if goal.quantile is not None and goal.noise == "banded":
        raise UsageError("banded noise needs a clip that stays: give independent noise, or no quantile of clips")
    nothing_cancels = goal.separation < 2 or goal.share < 1 or goal.quantile is not None
    if goal.noise == "independent" or (goal.noise == "auto" and nothing_cancels):
        return 0
    if goal.share < 1:
        raise UsageError("banded noise cancels only where every round sends the same numbers: give a share of 1")
    times = -(-goal.rounds // goal.separation)
    most = min(goal.separation, goal.rounds, MAX_BAND)
    bands = sorted({*(2**k for k in range(9) if 2**k <= most), most})
    best = min(bands, key=lambda band: prefix_error(band, goal.rounds) * sensitivity(band, times))
    return 0 if best == 1 and goal.noise == "auto" else best


def _fitted(goal: Goal, noise: Noise, multiplier: float, bits: int) -> Terms | None:
    """Terms whose modulus has just room for the noise, which is as large as the numbers are fine; None if none has."""
    found, least, most = None, 0, 2 ** (bits - 1)
    while least < most:
        room = (least + most) // 2
        terms = _with_room(goal, noise, multiplier, bits, room)
        if terms is not None and terms.noise_bound > room:
            least = room + 1
        else:
            found, most = terms or found, room
    return found


def _with_room(goal: Goal, noise: Noise, multiplier: float, bits: int, room: int) -> Terms | None:
    """Terms of a reach that leaves so much room for the noise; None if nothing is left for the reach."""
    try:
        numbers = numbers_of(
            goal.params, goal.clip, goal.cohort, share=goal.share, bits=bits, noise_bound=room,
            votes=goal.quantile is not None,
        )  # fmt: skip
    except UsageError:
        return None
    sigma = multiplier * math.sqrt(numbers["norm2"])
    filled = Noise(noise.kind, sigma, band=noise.band, separation=noise.separation, rounds=noise.rounds)
    least = min(goal.cohort, max(LEAST, goal.cohort // 2))
    return Terms(**_NOWHERE, **numbers, least=least, noise=filled, epsilon=goal.epsilon, delta=goal.delta)
