"""The contract of a codec.

Design:
  a) A codec is pure: the same delta and options give the same bytes, decoding keeps no state.
  b) Sizes come from our own plan, never from the payload: `decode` and `accumulate` are told P
     and refuse a payload of any other length than theirs may have.
  c) `accumulate` adds without ever holding a decoded vector longer than it must; an update that
     is refused leaves the accumulator's bits as they were.
  d) A codec may treat tensors differently, by their shapes; whoever has the plan says `for_tensors`, the same on
     both sides. Without, the delta is one long vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import numpy as np

from .. import _core
from ..core.accumulator import Accumulator
from ..core.plan import Param
from ..errors import CodecError, UsageError

C = TypeVar("C", bound="Codec")


class Codec(ABC):
    """One way to write a delta. `max_bytes` is a budget: the best the codec can do in that many, or CodecError."""

    name: ClassVar[str]
    wire_id: ClassVar[int]  # the envelope's codec byte: never reused, never changed
    feedback: ClassVar[bool] = False  # loses systematically: the loss is to be carried over to the next update
    lossless: ClassVar[bool] = False  # decodes to the very bits
    tensors: Sequence[Param] = ()  # what the delta consists of, in order; empty: not known

    def __init__(self, max_bytes: int | None = None) -> None:
        if max_bytes is not None and (not isinstance(max_bytes, int) or max_bytes < 1):
            raise UsageError(f"{self.name}: max_bytes is {max_bytes!r}: give a whole number of bytes above 0")
        self.max_bytes = max_bytes

    def for_tensors(self: C, tensors: Sequence[Param]) -> C:
        """This codec, told that deltas consist of `tensors` (a plan's params), in this order."""
        self.tensors = tensors
        return self

    @abstractmethod
    def bound(self, num_params: int) -> int:
        """The longest payload in bytes that `num_params` coordinates can take."""

    @abstractmethod
    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        """Bytes of `delta`, (P,) float32 and finite; CodecError otherwise or when over `max_bytes`.

        `rms` is the root mean square to take a quantizer's step from, where the delta carries former losses too.
        """

    def rms(self, delta: np.ndarray) -> float:
        """The root mean square that `encode` would take its step from; 0 of nothing."""
        return _core.rms(delta)

    def step_rms(self, fresh: np.ndarray, target: np.ndarray) -> float:
        """What to tell `encode` as `rms` of `target`, (P,) float32 as `fresh` is: `fresh` and former losses."""
        return self.rms(fresh)

    @abstractmethod
    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        """The (P,) float32 vector that `payload` stands for; CodecError if it is malformed."""

    @abstractmethod
    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        """Add `weight` times the decoded payload to `accumulator`; CodecError, and nothing added, if malformed."""

    def _check_delta(self, delta: np.ndarray) -> np.ndarray:
        delta = np.ascontiguousarray(delta, dtype=np.float32)
        if delta.ndim != 1:
            raise CodecError(f"{self.name}: a delta is one flat vector, not of shape {delta.shape}: pass delta.ravel()")
        if not np.isfinite(delta).all():
            where = int(np.flatnonzero(~np.isfinite(delta))[0])
            raise CodecError(
                f"{self.name}: the delta has {delta[where]} at coordinate {where}: lower the learning rate"
            )
        return delta

    def _check_decoded(self, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise CodecError(
                f"{self.name}: payload with NaN or infinity: its training diverged, lower the learning rate"
            )
        return values

    def _check_budget(self, size: int) -> None:
        if self.max_bytes is not None and size > self.max_bytes:
            raise CodecError(
                f"{self.name} needs {size} bytes and max_bytes is {self.max_bytes}: raise it or choose a denser codec"
            )

    def _check_length(self, payload: bytes | memoryview, expected: int) -> None:
        if len(payload) != expected:
            raise CodecError(
                f"{self.name}: payload of {len(payload)} bytes where the plan asks for {expected}: dropped"
            )
