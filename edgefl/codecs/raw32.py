"""raw32: the delta as little-endian float32. Lossless; for debugging, first contact and as the reference."""

from __future__ import annotations

import numpy as np

from ..core.accumulator import Accumulator
from .base import Codec


class Raw32(Codec):
    """4 bytes a coordinate."""

    name = "raw32"
    wire_id = 1
    lossless = True

    def bound(self, num_params: int) -> int:
        return 4 * num_params

    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        delta = self._check_delta(delta)
        self._check_budget(4 * delta.size)
        return delta.astype("<f4", copy=False).tobytes()

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        self._check_length(payload, 4 * num_params)
        return self._check_decoded(np.frombuffer(payload, "<f4").astype(np.float32))

    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        accumulator.add_f32(payload, weight)
