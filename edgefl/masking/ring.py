"""The ring Z_2^m: vectors of m-bit numbers, 2 <= m <= 32, added modulo 2^m, and packed without gaps.

Number i has bits i m to i m + m - 1 of the packed bytes; bit j is bit j mod 8 of byte j // 8. A number from 2^(m-1) on
stands for a negative one. Lengths come from the terms of a round, never from the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .. import _core
from ..errors import CodecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ring: TypeAlias = "NDArray[np.uint32]"


def packed_bytes(n: int, bits: int) -> int:
    """The bytes of n numbers of m = `bits` bits."""
    return -(-n * bits // 8)


def of(vector: NDArray[np.int64] | NDArray[np.int32], bits: int) -> Ring:
    """(n,) integers modulo 2^m."""
    out: Ring = vector.astype(np.uint32)
    out &= np.uint32((1 << bits) - 1)
    return out


def centre(vector: Ring, bits: int) -> NDArray[np.int64]:
    """(n,) int64 in [-2^(m-1), 2^(m-1)) of numbers modulo 2^m; higher bits do not count."""
    top = 1 << (bits - 1)
    wide: NDArray[np.int64] = vector & np.uint32((1 << bits) - 1)
    return (wide.astype(np.int64) ^ top) - top


def pack(vector: Ring, bits: int) -> bytes:
    """The lowest m bits of each number."""
    return _core.ring_pack(vector, bits)


def unpack(data: bytes | memoryview, n: int, bits: int) -> Ring:
    """(n,) numbers below 2^m; CodecError as `add`."""
    out = np.zeros(n, np.uint32)
    add(out, data, bits)
    return out


def add(acc: Ring, data: bytes | memoryview, bits: int) -> None:
    """acc (n,) += the packed numbers, modulo 2^32; CodecError unless `data` are as many, and the bits after the last
    one are 0. Then `acc` is what it was."""
    if len(data) != packed_bytes(len(acc), bits):
        raise CodecError(
            f"masked vector of {len(data)} bytes, expected {packed_bytes(len(acc), bits)}: rejected", "length"
        )
    if not _core.ring_add(acc, data, bits):
        raise CodecError("masked vector with bits after its last number: rejected", "codec")
