"""f16: IEEE 754 binary16, rounded to nearest even. Half of raw32's bytes for about three decimal digits."""

from __future__ import annotations

import numpy as np

from ..core.accumulator import Accumulator
from ..errors import CodecError
from .base import Codec

LARGEST = 65504.0


class F16(Codec):
    """2 bytes a coordinate; refuses what binary16 can't hold (beyond ±65504)."""

    name = "f16"
    wire_id = 2

    def bound(self, num_params: int) -> int:
        return 2 * num_params

    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        delta = self._check_delta(delta)
        self._check_budget(2 * delta.size)
        with np.errstate(over="ignore"):
            half = delta.astype("<f2")
        if not np.isfinite(half).all():
            raise CodecError(f"f16: the delta exceeds ±{LARGEST:.0f}: use raw32 or lower the learning rate")
        return half.tobytes()

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        self._check_length(payload, 2 * num_params)
        return self._check_decoded(np.frombuffer(payload, "<f2").astype(np.float32))

    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        accumulator.add_f16(payload, weight)
