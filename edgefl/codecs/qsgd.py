"""qsgd: buckets scaled by their largest value, stochastic rounding, packed bits, for comparison (Alistarh et al. 2017,
arXiv:1610.02132)."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..errors import UsageError
from .sealed import CRC_BYTES, Sealed

BUCKET = 512


class Qsgd(Sealed):
    """`bits` a coordinate, 2 to 8, of which one is the sign; a float32 scale for each BUCKET of them. Unbiased."""

    name = "qsgd"
    wire_id = 8

    def __init__(self, bits: int = 4, max_bytes: int | None = None) -> None:
        super().__init__(max_bytes)
        if not isinstance(bits, int) or not 2 <= bits <= 8:
            raise UsageError(f"qsgd: bits is {bits!r}: give a whole number from 2 to 8")
        self.bits = bits

    def bound(self, num_params: int) -> int:
        buckets = -(-num_params // BUCKET)
        return CRC_BYTES + 4 * buckets + -(-buckets * BUCKET * self.bits // 8)

    def _write(self, delta: np.ndarray) -> bytes:
        buckets = np.zeros((-(-len(delta) // BUCKET), BUCKET), np.float32)
        buckets.ravel()[: len(delta)] = delta
        scale = np.abs(buckets).max(axis=1, initial=0)
        most = 2 ** (self.bits - 1) - 1
        levels = np.abs(buckets.astype(np.float64)) / np.where(scale > 0, scale, 1)[:, None] * most
        coins = np.random.default_rng(_core.crc32c(delta.view(np.uint8))).random(buckets.shape)
        codes = np.floor(levels + coins).astype(np.uint8) | np.uint8(most + 1) * (buckets < 0)
        shifts = np.arange(self.bits, dtype=np.uint8)
        packed = np.packbits(codes.reshape(-1, 1) >> shifts & 1, bitorder="little")
        return scale.astype("<f4").tobytes() + packed.tobytes()

    def _read(self, data: bytes, num_params: int) -> np.ndarray:
        self._check_length(data, self.bound(num_params) - CRC_BYTES)
        buckets = -(-num_params // BUCKET)
        scale = np.frombuffer(data[: 4 * buckets], "<f4").astype(np.float32)
        bits = np.unpackbits(np.frombuffer(data[4 * buckets :], np.uint8), bitorder="little")
        planes = bits[: buckets * BUCKET * self.bits].reshape(-1, self.bits)
        most = 2 ** (self.bits - 1) - 1
        level = (planes[:, :-1] << np.arange(self.bits - 1, dtype=np.uint8)).sum(axis=1).astype(np.float32)
        values = level.reshape(buckets, BUCKET) * (self._check_decoded(scale) / np.float32(most))[:, None]
        return np.where(planes[:, -1].reshape(buckets, BUCKET), -values, values).ravel()[:num_params].astype(np.float32)
