"""RealSum: Σ w_k Δ_k with real weights, in the same bits for every order of the updates.

Design:
  a) A weight is w = s · 2^e with 1 <= s < 2. The delta is multiplied by s, coordinate by coordinate in float32, and
     2^(e mod 16) is the whole number with which an accumulator adds it. Neither depends on any other update.
  b) There is an accumulator for each e div 16: weights of a round may differ by any factor, and none of them is lost in
     the rounding of another. Most rounds need one or two.
  c) The accumulators are added up in float64, in a fixed order, when the round is over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ... import _core
from ...core.accumulator import MAX_WEIGHT, SCALE, Accumulator
from ...errors import CodecError
from ..base import Update

WIDTH = 16  # of the exponents that share an accumulator
LEAST, MOST = 2.0**-64, 2.0**63  # eight accumulators at the most, whatever devices say of themselves
SHARE = 2**53  # of an accumulator's headroom, by one update


class RealSum:
    """Sums over updates of length P."""

    def __init__(self, num_params: int) -> None:
        self._num_params = num_params
        self._sums: dict[int, Accumulator] = {}

    def add(self, delta: np.ndarray, weight: float) -> None:
        """Add `delta`, (P,) float32, `weight` times; CodecError, with nothing changed, if it has no room."""
        with self.admit(delta, weight):
            pass

    @contextmanager
    def admit(self, delta: np.ndarray, weight: float) -> Iterator[None]:
        """As `add`, when the block ends: sums that are opened together take an update all, or not at all."""
        if delta.shape != (self._num_params,):
            raise CodecError(f"delta of {delta.size} params where {self._num_params} were expected", "length")
        fraction, exponent = math.frexp(min(MOST, max(LEAST, weight)))
        place, shift = divmod(exponent - 1, WIDTH)
        with np.errstate(over="ignore"):  # infinity is refused
            scaled = np.multiply(delta, np.float32(2 * fraction), dtype="<f4")
        kept = self._sums.get(place) or Accumulator(self._num_params, share=SHARE)
        payload = scaled.data.cast("B")
        with kept.admit(_core.peak_f32(payload), 2**shift) as acc:
            yield
            _core.accumulate_f32(payload, 2**shift, acc)
        self._sums[place] = kept

    def total(self) -> np.ndarray:
        """(P,) float64."""
        out = np.zeros(self._num_params)
        for place, kept in sorted(self._sums.items()):
            out += kept.acc * (2.0 ** (WIDTH * place) / SCALE)
        return out


def check(update: Update) -> None:
    """CodecError unless the update claims examples as an accumulator allows."""
    if not 1 <= update.weight <= update.num_examples <= MAX_WEIGHT:
        raise CodecError(f"update with num_examples {update.num_examples}: a device must report 1 to {MAX_WEIGHT}")
