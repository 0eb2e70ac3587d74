"""Known methods that codecs.py and curves.py compare with: QSGD, top-k and sign, written plainly in NumPy.

They are codecs (edgefl/codecs/base.py), so they run in a federation too. A vector is decoded whole, and payloads are
not protected against damage or malice: they never leave the benchmark.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod

import numpy as np

from edgefl.codecs.base import Codec
from edgefl.core.accumulator import Accumulator

BUCKET = 512


class Baseline(Codec):
    """A codec that decodes whole vectors."""

    @abstractmethod
    def _write(self, delta: np.ndarray) -> bytes:
        """The payload of `delta`, (P,) float32 and finite."""

    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        return self._write(self._check_delta(delta))

    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        decoded = self.decode(payload, accumulator.acc.size)
        accumulator.add_f32(decoded.astype("<f4", copy=False).tobytes(), weight)


class Qsgd(Baseline):
    """Buckets scaled by their largest value, stochastic rounding, packed bits (Alistarh et al. 2017, arXiv:1610.02132).

    `bits` a coordinate, 2 to 8, one of them the sign, and a float32 scale for each BUCKET of coordinates. Unbiased.
    """

    name = "baseline-qsgd"
    wire_id = 201

    def __init__(self, bits: int = 4) -> None:
        super().__init__()
        self.bits = bits

    def bound(self, num_params: int) -> int:
        buckets = -(-num_params // BUCKET)
        return 4 * buckets + -(-buckets * BUCKET * self.bits // 8)

    def _write(self, delta: np.ndarray) -> bytes:
        buckets = np.zeros((-(-len(delta) // BUCKET), BUCKET), np.float32)
        buckets.ravel()[: len(delta)] = delta
        scale = np.abs(buckets).max(axis=1, initial=0)
        most = 2 ** (self.bits - 1) - 1
        levels = np.abs(buckets.astype(np.float64)) / np.where(scale > 0, scale, 1)[:, None] * most
        coins = np.random.default_rng(zlib.crc32(delta.tobytes())).random(buckets.shape)
        codes = np.floor(levels + coins).astype(np.uint8) | np.uint8(most + 1) * (buckets < 0)
        shifts = np.arange(self.bits, dtype=np.uint8)
        packed = np.packbits(codes.reshape(-1, 1) >> shifts & 1, bitorder="little")
        return scale.astype("<f4").tobytes() + packed.tobytes()

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        self._check_length(payload, self.bound(num_params))
        buckets = -(-num_params // BUCKET)
        scale = np.frombuffer(payload[: 4 * buckets], "<f4").astype(np.float32)
        bits = np.unpackbits(np.frombuffer(payload[4 * buckets :], np.uint8), bitorder="little")
        planes = bits[: buckets * BUCKET * self.bits].reshape(-1, self.bits)
        most = 2 ** (self.bits - 1) - 1
        level = (planes[:, :-1] << np.arange(self.bits - 1, dtype=np.uint8)).sum(axis=1).astype(np.float32)
        values = level.reshape(buckets, BUCKET) * (scale / np.float32(most))[:, None]
        return np.where(planes[:, -1].reshape(buckets, BUCKET), -values, values).ravel()[:num_params].astype(np.float32)


class TopK(Baseline):
    """The largest `fraction` of the coordinates, each with its index (Aji, Heafield 2017, arXiv:1704.05021)."""

    name = "baseline-topk"
    wire_id = 202
    feedback = True

    def __init__(self, fraction: float = 0.01) -> None:
        super().__init__()
        self.fraction = fraction

    def bound(self, num_params: int) -> int:
        return 8 * num_params

    def _write(self, delta: np.ndarray) -> bytes:
        count = min(len(delta), max(1, round(self.fraction * len(delta))))
        index = np.sort(np.argpartition(np.abs(delta), len(delta) - count)[len(delta) - count :])
        return index.astype("<u4").tobytes() + delta[index].astype("<f4").tobytes()

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        half = len(payload) // 2
        out = np.zeros(num_params, np.float32)
        out[np.frombuffer(payload[:half], "<u4")] = np.frombuffer(payload[half:], "<f4")
        return out


class Sign(Baseline):
    """One bit a coordinate and the mean of |x| (Bernstein et al. 2018, arXiv:1802.04434). A zero counts as positive."""

    name = "baseline-sign"
    wire_id = 203
    feedback = True

    def bound(self, num_params: int) -> int:
        return 4 + -(-num_params // 8)

    def _write(self, delta: np.ndarray) -> bytes:
        scale = np.float32(np.abs(delta.astype(np.float64)).mean() if len(delta) else 0)
        return scale.astype("<f4").tobytes() + np.packbits(delta < 0, bitorder="little").tobytes()

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        self._check_length(payload, self.bound(num_params))
        scale = np.frombuffer(payload[:4], "<f4").astype(np.float32)[0]
        bits = np.unpackbits(np.frombuffer(payload[4:], np.uint8), count=num_params, bitorder="little")
        return np.where(bits, -scale, scale).astype(np.float32)
