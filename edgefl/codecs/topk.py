"""topk: the largest coordinates, each with its index, for comparison (Aji, Heafield 2017, arXiv:1704.05021)."""

from __future__ import annotations

import numpy as np

from ..errors import CodecError, UsageError
from .sealed import CRC_BYTES, Sealed

PAIR_BYTES = 8


class TopK(Sealed):
    """`fraction` of the coordinates, at least one, go as uint32 index and float32 value; the others count as 0."""

    name = "topk"
    wire_id = 9
    feedback = True

    def __init__(self, fraction: float = 0.01, max_bytes: int | None = None) -> None:
        super().__init__(max_bytes)
        if not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise UsageError(f"topk: fraction is {fraction!r}: give a number above 0, at most 1")
        self.fraction = fraction

    def _count(self, num_params: int) -> int:
        most = num_params if self.max_bytes is None else (self.max_bytes - CRC_BYTES) // PAIR_BYTES
        return max(0, min(num_params, most, max(1, round(self.fraction * num_params))))

    def bound(self, num_params: int) -> int:
        return CRC_BYTES + PAIR_BYTES * num_params

    def _write(self, delta: np.ndarray) -> bytes:
        count = self._count(len(delta))
        size = np.abs(delta)
        index = np.sort(np.argpartition(size, len(delta) - count)[len(delta) - count :]) if count else np.zeros(0, int)
        return index.astype("<u4").tobytes() + delta[index].astype("<f4").tobytes()

    def _read(self, data: bytes, num_params: int) -> np.ndarray:
        if len(data) % PAIR_BYTES or len(data) > PAIR_BYTES * num_params:
            raise CodecError(f"topk: payload of {len(data)} bytes is no list of pairs: dropped")
        half = len(data) // 2
        index = np.frombuffer(data[:half], "<u4").astype(np.int64)
        if len(index) and (index[-1] >= num_params or (np.diff(index) <= 0).any()):
            raise CodecError("topk: payload with an index twice, or beyond the model: dropped")
        out = np.zeros(num_params, np.float32)
        out[index] = np.frombuffer(data[half:], "<f4")
        return out
