"""What the codecs that are here for comparison share: a CRC-32C in front, and a vector that is decoded whole."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from .. import _core
from ..core.accumulator import Accumulator
from ..errors import CodecError
from .base import Codec

CRC_BYTES = 4


class Sealed(Codec):
    """Base of qsgd, topk and sign: known methods, written plainly, to measure the others against."""

    @abstractmethod
    def _write(self, delta: np.ndarray) -> bytes:
        """The bytes of `delta`, (P,) float32 and finite."""

    @abstractmethod
    def _read(self, data: bytes, num_params: int) -> np.ndarray:
        """The (P,) float32 that `data` stands for; CodecError if it is not as long as it must be."""

    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        data = self._write(self._check_delta(delta))
        self._check_budget(CRC_BYTES + len(data))
        return _core.crc32c(data).to_bytes(CRC_BYTES, "little") + data

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        data = bytes(payload[CRC_BYTES:])
        if len(payload) < CRC_BYTES or _core.crc32c(data) != int.from_bytes(payload[:CRC_BYTES], "little"):
            raise CodecError(f"{self.name}: payload fails its CRC32C: dropped")
        return self._check_decoded(self._read(data, num_params))

    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        decoded = self.decode(payload, accumulator.acc.size)
        accumulator.add_f32(decoded.astype("<f4", copy=False).tobytes(), weight)
