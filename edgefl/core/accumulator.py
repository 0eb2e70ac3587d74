"""Accumulator: the weighted mean of any number of updates in O(P) memory, whatever their order.

Design:
  a) Sums are int64 fixed point with 30 fractional bits, so addition is associative: order, sharding and trees
     of partial sums give the same bits.
  b) An update is checked completely before it is added; a refused one leaves no trace.
  c) Headroom is tracked exactly, as a Python int bounding every coordinate's |sum|.

Not here: how an update is compressed (codecs/) and what is done with the mean (strategies/).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .. import _core
from ..errors import CodecError

SCALE = 2**30
LIMIT = 2**63
MAX_WEIGHT = 2**32
# weight, count and bound as three 16-byte little-endian integers: none can outgrow that.
_HEADER = struct.Struct("<16s16s16s")


class Accumulator:
    """Sum of weight_k * delta_k over updates of length P.

    `acc` (P,) int64 is the fixed-point sum, `weight` the sum of the n_k, `count` the number of updates. `share` is the
    most of the headroom, 2^63, that one update may take.
    """

    def __init__(self, num_params: int, share: int = LIMIT) -> None:
        self._share = share
        self.acc = np.zeros(num_params, np.int64)
        self.weight = 0
        self.count = 0
        self._bound = 0

    def add_f32(self, payload: bytes | memoryview, weight: int) -> None:
        """Add little-endian float32 (P,) times `weight`, 1 to 2^32; after a CodecError nothing has changed."""
        expected = 4 * self.acc.size
        size = memoryview(payload).nbytes
        if size != expected:
            raise CodecError(
                f"update of {size} bytes where {expected} were expected: it is for another model", "length"
            )
        with self.admit(_core.peak_f32(payload), weight) as acc:
            _core.accumulate_f32(payload, weight, acc)

    @contextmanager
    def admit(self, peak: float, weight: int) -> Iterator[np.ndarray]:
        """Yields the sums `acc`, to which a codec adds one update of `weight` with |delta| <= `peak` (inf: not finite).

        Raises CodecError if there is no room. The update counts unless the block raises; then `acc` must be unchanged.
        """
        if not 1 <= weight <= MAX_WEIGHT:
            raise CodecError(f"update with num_examples {weight}: a device must report 1 to {MAX_WEIGHT}")
        if not math.isfinite(peak):
            raise CodecError("update with NaN or infinity: its training diverged, lower the learning rate", "finite")
        claim = weight * (math.ceil(peak * SCALE) + 1)
        if claim > self._share:
            raise CodecError(
                f"update of absurd scale: |delta| up to {peak:g} for {weight} examples: lower the learning rate",
                "influence",
            )
        bound = self._claim(claim)
        yield self.acc
        self._bound = bound
        self.weight += weight
        self.count += 1

    def _claim(self, bound: int) -> int:
        """The bound after adding `bound`, or CodecError if a coordinate could then leave int64."""
        if self._bound + bound >= LIMIT:
            raise CodecError("update would overflow the sum: clip the updates (clip_norm) or lower the weights")
        return self._bound + bound

    def dilute(self, weight: int) -> None:
        """Add `weight` times a delta of zeros, to the update that was added last."""
        self.weight += weight

    def merge(self, other: Accumulator) -> None:
        """Add the partial sum of another accumulator of the same model."""
        if other.acc.size != self.acc.size:
            raise CodecError(f"partial sum of {other.acc.size} params where {self.acc.size} were expected")
        self._bound = self._claim(other._bound)
        self.acc += other.acc
        self.weight += other.weight
        self.count += other.count

    def mean(self) -> np.ndarray:
        """(P,) float32: sum of n_k delta_k / sum of n_k, or zeros without any update."""
        return (self.acc / (float(self.weight or 1) * SCALE)).astype(np.float32)

    def to_bytes(self) -> bytes:
        """Header of 48 bytes, then acc as little-endian int64."""
        numbers = (n.to_bytes(16, "little") for n in (self.weight, self.count, self._bound))
        return _HEADER.pack(*numbers) + self.acc.astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, num_params: int) -> Accumulator:
        """The accumulator that `to_bytes` wrote; CodecError if it is not one of `num_params`."""
        expected = _HEADER.size + 8 * num_params
        if len(data) != expected:
            raise CodecError(f"partial sum of {len(data)} bytes where {expected} were expected: another model's")
        result = cls(num_params)
        numbers = (int.from_bytes(n, "little") for n in _HEADER.unpack_from(data))
        result.weight, result.count, result._bound = numbers
        acc = np.frombuffer(data, "<i8", offset=_HEADER.size)
        largest = max(int(acc.max(initial=0)), -int(acc.min(initial=0)))
        if not largest <= result._bound < LIMIT or result.count > result.weight:
            raise CodecError("partial sum contradicts itself: it was damaged, ask for it again")
        result.acc[:] = acc
        return result
