"""A strategy's state as bytes, for the aggregator's database.

    length of the head u32 | head, JSON: the strategy's name and each array's name, type and shape | the arrays' bytes

Little-endian. b"" is the state of a strategy that has none. The caller keeps the checksum.
"""

from __future__ import annotations

import math
import struct
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from ..errors import StoreError
from .base import State

_LENGTH = struct.Struct("<I")


class _Array(msgspec.Struct, array_like=True, frozen=True):
    name: str
    dtype: Literal["<f4", "<f8", "<i8"]
    shape: list[Annotated[int, Meta(ge=0)]]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype[2])


class _Head(msgspec.Struct, frozen=True):
    strategy: str
    arrays: list[_Array]


def pack(strategy: str, state: State) -> bytes:
    """Bytes of `state`; StoreError for an array that is neither float32, float64 nor int64."""
    arrays, bodies = [], []
    for name, value in state.items():
        array = np.asarray(value)
        dtype = array.dtype.newbyteorder("<").str
        if dtype not in ("<f4", "<f8", "<i8"):
            raise StoreError(f"state {name!r} of strategy {strategy!r} is {dtype}: use float32, float64 or int64")
        arrays.append(_Array(name, dtype, list(array.shape)))
        bodies.append(array.astype(dtype, copy=False).tobytes())
    if not arrays:
        return b""
    head = msgspec.json.encode(_Head(strategy, arrays))
    return b"".join((_LENGTH.pack(len(head)), head, *bodies))


def unpack(data: bytes) -> tuple[str, State]:
    """The strategy's name and the state that `pack` was given; "" and {} of b"". StoreError if it is malformed."""
    if not data:
        return "", {}
    try:
        (length,) = _LENGTH.unpack_from(data)
        start = _LENGTH.size + length
        head = msgspec.json.decode(data[_LENGTH.size : start], type=_Head)
    except (struct.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"a strategy's state can't be read ({error}): put a backup in its place") from None
    if start + sum(array.nbytes for array in head.arrays) != len(data):
        raise StoreError("a strategy's state is not as long as it says: put a backup in its place")
    state: State = {}
    for array in head.arrays:
        flat = np.frombuffer(data, array.dtype, math.prod(array.shape), start)
        state[array.name] = flat.astype(flat.dtype.newbyteorder("=")).reshape(array.shape)
        start += array.nbytes
    return head.strategy, state
