"""sign: one bit a coordinate and the mean of |x|, for comparison (Bernstein et al. 2018, arXiv:1802.04434)."""

from __future__ import annotations

import numpy as np

from .sealed import CRC_BYTES, Sealed

SCALE_BYTES = 4


class Sign(Sealed):
    """A zero counts as positive: every coordinate moves."""

    name = "sign"
    wire_id = 10
    feedback = True

    def bound(self, num_params: int) -> int:
        return CRC_BYTES + SCALE_BYTES + -(-num_params // 8)

    def _write(self, delta: np.ndarray) -> bytes:
        scale = np.float32(np.abs(delta.astype(np.float64)).mean() if len(delta) else 0)
        return scale.astype("<f4").tobytes() + np.packbits(delta < 0, bitorder="little").tobytes()

    def _read(self, data: bytes, num_params: int) -> np.ndarray:
        self._check_length(data, self.bound(num_params) - CRC_BYTES)
        scale = np.frombuffer(data[:SCALE_BYTES], "<f4").astype(np.float32)[0]
        bits = np.unpackbits(np.frombuffer(data[SCALE_BYTES:], np.uint8), count=num_params, bitorder="little")
        return np.where(bits, -scale, scale).astype(np.float32)
