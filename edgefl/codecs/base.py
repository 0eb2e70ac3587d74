"""The contract of a codec.

Design:
  a) A codec is pure and never changes: the same delta and options give the same bytes, and decoding keeps no state.
  b) Sizes come from our own plan, never from the payload. `decode` and `accumulate` are told P, and refuse a payload
     longer or shorter than P allows.
  c) An update that `accumulate` refuses leaves the accumulator's bits as they were. The entropy-coded codecs decode a
     block at a time for it; those that are made of others (grid, stacked) decode the whole vector first.
  d) A codec may treat tensors differently, by their shapes. Encoder and decoder both make it `for_tensors` of the same
     plan. Without tensors, the delta is one long vector.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from .. import _core
from ..core.accumulator import Accumulator
from ..core.plan import Param
from ..errors import CodecError, UsageError
from ..registry import options_of

C = TypeVar("C", bound="Codec")


class Codec(ABC):
    """One way to write a delta. `max_bytes` is a budget: a payload has at most so many bytes, or encoding fails."""

    name: ClassVar[str]
    wire_id: ClassVar[int]  # the envelope's codec byte: never reused, never changed
    feedback: ClassVar[bool] = False  # its errors are systematic, so devices carry them over to the next update
    lossless: ClassVar[bool] = False  # what it decodes has the bits of what it encoded
    FORMS: ClassVar[tuple[str, ...]] = ()  # of its payloads, younger than the codec: older devices do not know them
    forms: tuple[str, ...] = ()  # those of them that `encode` may write; `decode` reads all
    rounds: ClassVar[bool] = False  # models are rounded to what it writes in few bits (grid.py)
    options: Mapping[str, Any]  # what it was made with, for the manifest
    tensors: Sequence[Param] = ()  # the parts of a delta, in order; empty: not known

    def __new__(cls: type[C], *args: Any, **options: Any) -> C:
        codec = super().__new__(cls)
        given = {**dict(zip(options_of(cls).names, args, strict=False)), **options}
        codec.options = {name: value for name, value in given.items() if value is not None}
        return codec

    def __init__(self, max_bytes: int | None = None) -> None:
        if max_bytes is not None and (not isinstance(max_bytes, int) or max_bytes < 1):
            raise UsageError(f"{self.name}: max_bytes is {max_bytes!r}: give a whole number of bytes above 0")
        self.max_bytes = max_bytes

    def for_tensors(self, tensors: Sequence[Param]) -> Codec:
        """A copy of this codec for deltas that consist of `tensors` (a plan's params), in this order."""
        told = copy.copy(self)
        told.tensors = tuple(tensors)
        return told

    def with_forms(self: C, forms: Sequence[str]) -> C:
        """A copy of this codec whose `encode` may write `forms`, as far as this version knows them."""
        told = copy.copy(self)
        told.forms = tuple(form for form in self.FORMS if form in forms)
        return told

    def within(self: C, max_bytes: int) -> C:
        """A copy of this codec with this budget, or with its own if that is less."""
        told = copy.copy(self)
        told.max_bytes = max_bytes if self.max_bytes is None else min(max_bytes, self.max_bytes)
        return told

    @abstractmethod
    def bound(self, num_params: int) -> int:
        """The most bytes of a payload of `num_params` coordinates."""

    @abstractmethod
    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        """The payload of `delta`, (P,) float32; CodecError if `delta` is not finite or the payload exceeds `max_bytes`.

        A quantizer's step follows from the root mean square of `delta`, or from `rms` where that is given.
        """

    def rms(self, delta: np.ndarray) -> float:
        """The root mean square that sets the step of `encode`; 0 for an empty delta."""
        return _core.rms(delta)

    def step_rms(self, fresh: np.ndarray, target: np.ndarray) -> float:
        """The `rms` with which to encode `target`, which is the `fresh` delta plus the residual; both (P,) float32."""
        return self.rms(fresh)

    def encode_after(self, fresh: np.ndarray, target: np.ndarray) -> bytes:
        """The payload of `target`, the `fresh` delta plus the residual, in a step that suits both."""
        return self.encode(target, self.step_rms(fresh, target))

    def measured(self, num_params: int) -> list[slice]:
        """Where the numbers of a delta lie that training only measures: running statistics."""
        found, at = [], 0
        for tensor in self.tensors:
            if not tensor.trainable:
                found.append(slice(at, at + tensor.size))
            at += tensor.size
        return found

    def encode_model(self, model: np.ndarray, fresh: np.ndarray, shown: np.ndarray) -> bytes:
        """The payload that leads from `shown`, what devices have, to about `model`, which has moved by `fresh` since
        then; all (P,) float32."""
        return self.encode_after(fresh, model - shown)

    def rounded(self, model: np.ndarray) -> np.ndarray:
        """`model` (P,) float32 as a codec that `rounds` writes it; else `model` itself."""
        return model

    @abstractmethod
    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        """The (P,) float32 vector that `payload` stands for; CodecError if it is malformed."""

    @abstractmethod
    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        """Add `weight` times the decoded payload to `accumulator`; CodecError, and nothing added, if malformed."""

    def _check_delta(self, delta: np.ndarray) -> np.ndarray:
        try:
            delta = np.ascontiguousarray(delta, dtype=np.float32)
        except (TypeError, ValueError):
            raise CodecError(f"{self.name}: a delta is (P,) float32, not {delta!r}") from None
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
                f"{self.name}: payload with NaN or infinity: its training diverged, lower the learning rate",
                "finite",
            )
        return values

    def _check_budget(self, size: int) -> None:
        if self.max_bytes is not None and size > self.max_bytes:
            raise CodecError(
                f"{self.name} needs {size} bytes and max_bytes is {self.max_bytes}: raise it or choose a denser codec"
            )

    def _bytes_of(self, payload: bytes | memoryview) -> memoryview:
        if not isinstance(payload, bytes | bytearray | memoryview):
            raise CodecError(f"{self.name}: a payload is bytes, not {payload!r}")
        return memoryview(payload)

    def _check_length(self, payload: bytes | memoryview, expected: int) -> None:
        payload = self._bytes_of(payload)
        if len(payload) != expected:
            raise CodecError(
                f"{self.name}: payload of {len(payload)} bytes where the plan asks for {expected}: dropped",
                "length",
            )
