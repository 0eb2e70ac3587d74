"""planes: lossless. Byte 3 of every float32 is one plane, byte 2 the next; rANS codes a plane where that is shorter.

    CRC-32C u32 of the rest | coded u8, bit i for plane i | u32 lengths of the coded planes
    | four planes, highest first: a frequency table (tables.py) and a rANS stream if coded, else the bytes

Before the split, the sign moves to the lowest bit. So the highest plane is the exponent, which takes under three bits
of a weight.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from .. import _core
from ..core.accumulator import Accumulator
from ..errors import CodecError
from .base import Codec
from .reader import Reader
from .tables import read_table

BLOCK = 65536  # coordinates decoded at a time
PLANES = 4
LANES = 32
SHORT = 1024  # with fewer coordinates, tables and states cost more than they save
_HEAD = struct.Struct("<IB")
_LENGTH = struct.Struct("<I")


class Planes(Codec):
    """About 3.3 bytes a coordinate of weights; at most 4, and a header of 5 bytes."""

    name = "planes"
    wire_id = 3
    lossless = True

    def bound(self, num_params: int) -> int:
        return _HEAD.size + PLANES * num_params

    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        delta = self._check_delta(delta)
        bits = delta.view(np.uint32)
        turned = bits << np.uint32(1) | bits >> np.uint32(31)
        coded, lengths, bodies = 0, b"", []
        for plane in range(PLANES):
            symbols = (turned >> 8 * (PLANES - 1 - plane)).astype(np.uint8)
            body = symbols.tobytes()
            if len(delta) >= SHORT:
                frequencies = _core.rans_normalise(_core.count_symbols(symbols, None, 1)[0])
                shorter = _core.write_table(frequencies)
                shorter += _core.rans_encode(symbols, None, frequencies[None], LANES)
                if len(shorter) + _LENGTH.size < len(body):
                    body, coded, lengths = shorter, coded | 1 << plane, lengths + _LENGTH.pack(len(shorter))
            bodies.append(body)
        rest = b"".join((bytes([coded]), lengths, *bodies))
        self._check_budget(4 + len(rest))
        return _core.crc32c(rest).to_bytes(4, "little") + rest

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        out = np.empty(num_params, np.float32)
        for start, values in self._blocks(payload, num_params):
            out[start : start + len(values)] = values
        return out

    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        size = accumulator.acc.size
        peak = max((_core.peak_f32(values.view(np.uint8)) for _, values in self._blocks(payload, size)), default=0.0)
        with accumulator.admit(peak, weight) as acc:
            for start, values in self._blocks(payload, size):
                _core.accumulate_f32(values.view(np.uint8), weight, acc[start : start + len(values)])

    def _blocks(self, payload: bytes | memoryview, num_params: int) -> Iterator[tuple[int, np.ndarray]]:
        """(start, float32 values) of one block after another; CodecError if malformed, even after the last block."""
        try:
            planes = _parse(self._bytes_of(payload), num_params)
            for start in range(0, num_params, BLOCK):
                turned = np.zeros(min(BLOCK, num_params - start), np.uint32)
                for plane in planes:
                    symbols = np.empty(len(turned), np.uint8)
                    plane.read(symbols, start)
                    turned = turned << np.uint32(8) | symbols.astype(np.uint32)
                values = (turned >> np.uint32(1) | turned << np.uint32(31)).view(np.float32)
                if not np.isfinite(values).all():
                    raise CodecError("planes: payload with NaN or infinity: its training diverged", "finite")
                yield start, values
            for plane in planes:
                plane.finish()
        except (struct.error, ValueError, IndexError) as error:
            raise CodecError(f"planes: payload is cut off or malformed ({error}): dropped") from None


class _RawPlane:
    def __init__(self, data: memoryview) -> None:
        self._data = np.frombuffer(data, np.uint8)

    def read(self, symbols: np.ndarray, start: int) -> None:
        symbols[:] = self._data[start : start + len(symbols)]

    def finish(self) -> None:
        """Its length has been checked."""


class _CodedPlane:
    def __init__(self, data: memoryview) -> None:
        reader = Reader(data)
        frequencies = read_table(reader)
        self._stream = _core.RansDecoder(reader.rest, frequencies[None], LANES)

    def read(self, symbols: np.ndarray, start: int) -> None:
        self._stream.next(symbols)

    def finish(self) -> None:
        self._stream.finish()


def _parse(view: memoryview, num_params: int) -> list[_RawPlane | _CodedPlane]:
    crc, coded = _HEAD.unpack_from(view)
    if _core.crc32c(view[4:]) != crc:
        raise CodecError("planes: payload fails its CRC32C: dropped")
    if coded >= 1 << PLANES:
        raise CodecError(f"planes: payload of unknown form {coded}: update edgefl on this side")
    at = _HEAD.size
    lengths = [num_params] * PLANES
    for plane in range(PLANES):
        if coded >> plane & 1:
            lengths[plane] = _LENGTH.unpack_from(view, at)[0]
            at += _LENGTH.size
    if at + sum(lengths) != len(view):
        raise CodecError("planes: payload is not as long as the plan and its head say: dropped", "length")
    planes: list[_RawPlane | _CodedPlane] = []
    for plane, length in enumerate(lengths):
        data = view[at : at + length]
        planes.append(_CodedPlane(data) if coded >> plane & 1 else _RawPlane(data))
        at += length
    return planes
