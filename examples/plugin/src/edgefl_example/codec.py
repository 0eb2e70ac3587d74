"""The largest coordinates and their values; all others are left out (Aji and Heafield 2017, arXiv:1704.05021).

payload: index u32 and value f32 of each coordinate that is sent, in rising order of the indices, little-endian
"""

from __future__ import annotations

import math

import numpy as np

from edgefl.codecs import Codec
from edgefl.core.accumulator import Accumulator
from edgefl.errors import CodecError, UsageError

ENTRY = np.dtype([("index", "<u4"), ("value", "<f4")])


class TopK(Codec):
    """`fraction` of the coordinates is sent: both sides know how many, so a payload has one possible length."""

    name = "example-topk"
    wire_id = 240
    feedback = True  # what is left out must be added to the next update

    def __init__(self, fraction: float = 0.1, max_bytes: int | None = None) -> None:
        super().__init__(max_bytes)
        if not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
            raise UsageError(f"{self.name}: fraction is {fraction!r}: give a number above 0, at most 1")
        self.fraction = fraction

    def _count(self, num_params: int) -> int:
        return math.ceil(self.fraction * num_params)

    def bound(self, num_params: int) -> int:
        return ENTRY.itemsize * self._count(num_params)

    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        delta = self._check_delta(delta)
        self._check_budget(self.bound(len(delta)))
        largest = np.argsort(-np.abs(delta), kind="stable")[: self._count(len(delta))]
        entries = np.empty(len(largest), ENTRY)
        entries["index"] = np.sort(largest)
        entries["value"] = delta[entries["index"]]
        return entries.tobytes()

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        self._check_length(payload, self.bound(num_params))
        entries = np.frombuffer(payload, ENTRY)
        index = entries["index"].astype(np.int64)
        if index[-1] >= num_params or (np.diff(index) <= 0).any():
            raise CodecError(f"{self.name}: payload whose indices do not rise: dropped")
        values = np.zeros(num_params, np.float32)
        values[index] = self._check_decoded(entries["value"])
        return values

    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        values = self.decode(payload, accumulator.acc.size)
        accumulator.add_f32(values.astype("<f4").tobytes(), weight)
