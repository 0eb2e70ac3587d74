"""Stacked: several vectors of one length in one payload, each by the same codec with a step of its own.

A model whose strategy has side vectors goes down as one vector, the params and then the sides. An update goes up as
one, the delta and then the sides that its strategy wants. Their magnitudes differ by orders, so one step for all would
lose the smaller ones.

    payload    the length of each part, uint32 little-endian; then the parts
"""

from __future__ import annotations

import struct

import numpy as np

from ..core.accumulator import Accumulator
from ..errors import CodecError
from .base import Codec


class Stacked(Codec):
    """`count` vectors by `codec`, which is made for the tensors of one of them. Not for the wire by itself: both sides
    know from the manifest how many vectors there are, and the envelope says the codec of one."""

    name = "stacked"

    def __init__(self, codec: Codec, count: int) -> None:
        super().__init__()
        self._codec, self._count = codec, count
        self._lengths = struct.Struct(f"<{count}I")
        self.wire_id, self.lossless = codec.wire_id, codec.lossless  # type: ignore[misc]
        self.feedback, self.rounds = codec.feedback, codec.rounds  # type: ignore[misc]

    def _split(self, vector: np.ndarray) -> list[np.ndarray]:
        return np.split(vector, self._count)

    def within(self, max_bytes: int) -> Stacked:
        """Each vector may take its share of the budget."""
        told = super().within(max_bytes)
        told._codec = self._codec.within(max(1, (max_bytes - self._lengths.size) // self._count))
        return told

    def bound(self, num_params: int) -> int:
        return self._lengths.size + self._count * self._codec.bound(num_params // self._count)

    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        return self._join([self._codec.encode(part, rms) for part in self._split(self._check_delta(delta))])

    def encode_after(self, fresh: np.ndarray, target: np.ndarray) -> bytes:
        pairs = zip(self._split(fresh), self._split(self._check_delta(target)), strict=True)
        return self._join([self._codec.encode_after(*pair) for pair in pairs])

    def encode_model(self, model: np.ndarray, fresh: np.ndarray, shown: np.ndarray) -> bytes:
        threes = zip(self._split(self._check_delta(model)), self._split(fresh), self._split(shown), strict=True)
        return self._join([self._codec.encode_model(*three) for three in threes])

    def rounded(self, model: np.ndarray) -> np.ndarray:
        return np.concatenate([self._codec.rounded(part) for part in self._split(model)])

    def measured(self, num_params: int) -> list[slice]:
        return self._codec.measured(num_params // self._count)

    def _join(self, parts: list[bytes]) -> bytes:
        return b"".join((self._lengths.pack(*map(len, parts)), *parts))

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        payload, each = self._bytes_of(payload), num_params // self._count
        if len(payload) < self._lengths.size:
            raise CodecError(f"a payload of {len(payload)} bytes for {self._count} vectors: dropped", "length")
        lengths = self._lengths.unpack_from(payload)
        self._check_length(payload, self._lengths.size + sum(lengths))
        parts, start = [], self._lengths.size
        for length in lengths:
            parts.append(self._codec.decode(payload[start : start + length], each))
            start += length
        return np.concatenate(parts)

    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        decoded = self.decode(payload, len(accumulator.acc))
        accumulator.add_f32(decoded.astype("<f4", copy=False).data.cast("B"), weight)
