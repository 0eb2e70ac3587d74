"""The contract of a strategy: start a round, add updates as they come, finish with the next params.

Design:
  a) Streaming: a strategy holds one accumulator, never the updates.
  b) The delta is local − global, so the server optimizer adds: w ← w + η_s · Δ, with
     Δ = Σ n_k Δ_k / Σ n_k (McMahan et al. 2017, Algorithm 1; η_s as in Reddi et al. 2021).
  c) An update that comes s versions late moves the model by (1 + s)^-1/2 of what it would have: the polynomial
     weight of Xie et al. 2019 (arXiv:1903.03934) and of FedBuff (Nguyen et al. 2022, arXiv:2106.06639).
  d) It knows nothing of rounds' deadlines, devices' presence or the network.
"""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..codecs.base import Codec
from ..core.accumulator import Accumulator
from ..errors import UsageError

SHARE = 2**53  # n_k |delta| up to 2^23: a thousand updates of absurd scale leave headroom for the honest ones


@dataclass(frozen=True)
class Update:
    """What one device reports: its encoded delta and n_k, the number of examples behind it.

    `staleness`: the model has moved on so many versions since the one that the delta starts from.
    """

    device: str
    num_examples: int
    codec: Codec
    payload: bytes | memoryview
    staleness: int = 0


class Strategy(ABC):
    """Averages deltas weighted by n_k and lets a server optimizer apply the mean."""

    name: ClassVar[str]
    local_mode: ClassVar[str] = "sgd"  # what devices compute: "sgd" (a delta) or "gradient" (minus one gradient)

    def start(self, params: np.ndarray, round: int) -> None:
        """Begin round `round` from the global `params`, (P,) float32."""
        self._params = params
        self._accumulator = Accumulator(len(params), share=SHARE)

    def add(self, update: Update) -> None:
        """Count one update; CodecError, with nothing changed, if it can't be decoded or would overflow."""
        weight = stale_weight(update.num_examples, update.staleness)
        update.codec.accumulate(update.payload, weight, self._accumulator)
        self._accumulator.dilute(update.num_examples - weight)

    def finish(self) -> np.ndarray:
        """The next global params, (P,) float32. At least one update must have been added."""
        return self.apply(self._params, self._accumulator.mean())

    def apply(self, params: np.ndarray, mean_delta: np.ndarray) -> np.ndarray:
        """The server optimizer's step."""
        return params + mean_delta


def stale_weight(num_examples: int, staleness: int) -> int:
    """n_k (1 + s)^-1/2 to the nearest integer, at least 1 if n_k is. In integers: the same on any machine."""
    weight = (math.isqrt(4 * num_examples**2 // (1 + staleness)) + 1) // 2
    return min(num_examples, max(1, weight))


def learning_rate(option: str, value: float) -> np.float32:
    """`value` as a float32 step; UsageError names the `option` whose value is none."""
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UsageError(f"{option} is {value!r}: give a number above 0")
    return np.float32(value)
