"""Skeleton: an ONNX file without its trained numbers, and which params belong where.

The aggregator makes it of the model's file (onnx/skeleton.py). A device, which has neither the file nor onnx, fills the
holes with the params that it holds: the result is the file that `Model.to_bytes` writes, bit for bit.

    "EFLS" | version u8 | 0 u8 x 3 | length of the body u32 | zlib(body)
    body = length of the header u32 | header, JSON | the bytes of the file that are not cut out

A hole is a run of float32 numbers in the file. Its `blocks` say which params are in it, in order: a block begins at
param `start` and steps through nested axes, the outermost first, `count` times by `stride`. So the weight of a dense
layer, which the plan has transposed, is one block of two axes.

If `scale` is not 1, the file holds param / scale. Division does not give the old number back in every bit, and a number
that training did not change keeps its bits. So the body has the old numbers of such holes. A hole with a `step` above 4
has other bytes between its numbers: the tags of a list that is not packed.

A skeleton is not trusted: every number in it is checked against the number of params that the plan has, and the length
of what zlib makes of it is known beforehand.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from math import isfinite, prod
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from ..digests import sha256
from ..errors import ModelError

MAGIC, VERSION = b"EFLS", 1
LONGEST = 2**20  # bytes of a skeleton
LONGEST_BODY = 2**22
MOST_BLOCKS, MOST_AXES = 2**16, 8
_HEAD, _SIZE = struct.Struct("<4sB3xI"), struct.Struct("<I")
FLOAT = 4  # bytes
CHUNK = 2**16  # numbers that are put in place together: their indices take twice their memory

Offset = Annotated[int, Meta(ge=0, le=2**31)]
Index = Annotated[int, Meta(ge=0, le=2**31)]
Note = Annotated[str, Meta(pattern="^[a-z_]{1,32}\\Z")]


class Axis(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """`count` steps of `stride` params."""

    count: Annotated[int, Meta(ge=1, le=2**31)]
    stride: Annotated[int, Meta(ge=-(2**31), le=2**31)]


class Block(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The params start + sum of i * stride, with 0 <= i < count, over all axes; the last axis changes fastest."""

    start: Index
    axes: Annotated[list[Axis], Meta(max_length=MOST_AXES)] = []

    @property
    def size(self) -> int:
        return prod(axis.count for axis in self.axes)

    def lies_within(self, num_params: int) -> bool:
        """Whether all its params exist."""
        reach = [(axis.count - 1) * axis.stride for axis in self.axes]
        lowest = self.start + sum(span for span in reach if span < 0)
        return lowest >= 0 and self.start + sum(span for span in reach if span > 0) < num_params

    def indices(self) -> Iterator[np.ndarray]:
        """All its params in order, (k,) int64 at a time, k <= CHUNK."""
        for begin in range(0, self.size, CHUNK):
            place = np.arange(begin, min(begin + CHUNK, self.size))
            found = np.full(len(place), self.start, np.int64)
            for axis in reversed(self.axes):
                place, steps = np.divmod(place, axis.count)
                found += steps * axis.stride
            yield found


class Hole(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """`step` bytes from one number to the next, of which the first is at byte `at` of the file."""

    at: Offset
    blocks: Annotated[list[Block], Meta(min_length=1, max_length=MOST_BLOCKS)]
    step: Annotated[int, Meta(ge=FLOAT, le=16)] = FLOAT
    scale: float = 1.0

    @property
    def count(self) -> int:
        return sum(block.size for block in self.blocks)

    @property
    def end(self) -> int:
        return self.at + self.step * (self.count - 1) + FLOAT

    @property
    def is_cut(self) -> bool:
        """Whether the body lacks its bytes."""
        return self.step == FLOAT and self.scale == 1.0

    def indices(self) -> Iterator[np.ndarray]:
        return (found for block in self.blocks for found in block.indices())

    def room(self, buffer: bytes | bytearray, at: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Some of its numbers after others: which params (k,) they are, and where they are in a buffer that has the
        hole at byte `at`, (k, FLOAT) bytes."""
        numbers = np.ndarray((self.count, FLOAT), np.uint8, buffer, at, (self.step, 1))
        done = 0
        for found in self.indices():
            yield found, numbers[done : done + len(found)]
            done += len(found)


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`size` is the file's, `num_params` the plan's; holes are in the order of the file. `notes` are what the
    aggregator knows of every version, for the file's metadata: the names of the classes, say."""

    size: Offset
    num_params: Index
    holes: Annotated[list[Hole], Meta(max_length=MOST_BLOCKS)]
    notes: Annotated[dict[Note, str], Meta(max_length=16)] = {}


class Skeleton:
    """`kept` has the bytes of the file that are not cut out."""

    def __init__(self, header: Header, kept: bytes) -> None:
        self.header, self.kept = header, kept
        _check(header, len(kept))

    @property
    def num_params(self) -> int:
        return self.header.num_params

    def with_notes(self, notes: Mapping[str, str]) -> Skeleton:
        return Skeleton(msgspec.structs.replace(self.header, notes=dict(notes)), self.kept)

    def to_bytes(self) -> bytes:
        """ModelError if a device would refuse it for its length."""
        head = msgspec.json.encode(self.header)
        body = _SIZE.pack(len(head)) + head + self.kept
        blob = _HEAD.pack(MAGIC, VERSION, len(body)) + zlib.compress(body, 9)
        if len(body) > LONGEST_BODY or len(blob) > LONGEST:
            raise ModelError(f"its file has {len(body)} bytes beside its params, {LONGEST_BODY} are allowed")
        return blob

    @classmethod
    def from_bytes(cls, blob: bytes, num_params: int) -> Skeleton:
        """The skeleton of a model with so many params; ModelError if the bytes are not one."""
        if len(blob) > LONGEST or len(blob) < _HEAD.size:
            raise ModelError(f"{len(blob)} bytes are no skeleton of a model")
        magic, version, size = _HEAD.unpack_from(blob)
        if magic != MAGIC or version != VERSION:
            raise ModelError(f"no skeleton of a model, or one of a newer EdgeFL than this ({VERSION}): update it here")
        header, kept = _split(_inflated(blob[_HEAD.size :], size))
        if header.num_params != num_params:
            raise ModelError(f"a skeleton of {header.num_params} params for a model of {num_params}")
        return cls(header, kept)

    def pieces(self, params: np.ndarray) -> Iterator[bytes]:
        """The file with `params` (P,) float32, in pieces; ModelError."""
        if params.shape != (self.num_params,) or not np.isfinite(params).all():
            raise ModelError(f"the skeleton takes {self.num_params} finite params")
        kept, cut, at = bytearray(self.kept), 0, 0
        for hole in self.header.holes:
            if not hole.is_cut:
                self._overwrite(kept, hole, hole.at - cut, params)
                continue
            yield bytes(kept[at : hole.at - cut])
            for found in hole.indices():
                yield params[found].astype("<f4", copy=False).tobytes()
            at, cut = hole.at - cut, cut + hole.end - hole.at
        yield bytes(kept[at:])

    def _overwrite(self, kept: bytearray, hole: Hole, at: int, params: np.ndarray) -> None:
        """Write the numbers of a hole that is not cut out."""
        for found, room in hole.room(kept, at):
            values, old = params[found], np.ascontiguousarray(room).view("<f4")[:, 0]
            if hole.scale != 1.0:
                values = unscaled(values, old, hole.scale)
            room[:] = values.astype("<f4").view(np.uint8).reshape(-1, FLOAT)

    def params_of(self, file: bytes) -> np.ndarray | None:
        """(P,) the params in a file that `pieces` has made, with or without something behind it; None if it is no such
        file."""
        if len(file) < self.header.size:
            return None
        params = np.zeros(self.num_params, np.float32)
        for hole in self.header.holes:
            for found, room in hole.room(file, hole.at):
                values = np.ascontiguousarray(room).view("<f4")[:, 0]
                with np.errstate(all="ignore"):
                    params[found] = values if hole.scale == 1.0 else scaled(values, hole.scale)
        return params if self._made(file, params) else None

    def _made(self, file: bytes, params: np.ndarray) -> bool:
        """Whether the file begins with what `pieces` makes of these params."""
        if not np.isfinite(params).all():
            return False
        at, whole = 0, memoryview(file)
        for piece in self.pieces(params):
            if whole[at : at + len(piece)] != piece:
                return False
            at += len(piece)
        return True


def unscaled(values: np.ndarray, old: np.ndarray, scale: float) -> np.ndarray:
    """(n,) float32 `values` divided by `scale`; a number that `old` gives when it is scaled stays `old`."""
    with np.errstate(all="ignore"):
        moved = (values.astype(np.float64) / scale).astype(np.float32)
        return np.where(scaled(old, scale) == values, old, moved)


def scaled(values: np.ndarray, scale: float) -> np.ndarray:
    """(n,) float32 `values` times `scale`, as the importer computes params."""
    found: np.ndarray = (values.astype(np.float64) * scale).astype(np.float32)
    return found


def sha256_of(blob: bytes) -> str:
    """What names a skeleton in the manifest."""
    return sha256(blob).hexdigest()


def _inflated(packed: bytes, size: int) -> bytes:
    """The body of `size` bytes."""
    if not _SIZE.size <= size <= LONGEST_BODY:
        raise ModelError(f"a skeleton of {size} bytes, at most {LONGEST_BODY} are read")
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(packed, size)
    except zlib.error as error:
        raise ModelError(f"a damaged skeleton: {error}") from None
    if len(body) != size or not unpacker.eof or unpacker.unused_data:
        raise ModelError("a damaged skeleton: its length is not what it says")
    return body


def _split(body: bytes) -> tuple[Header, bytes]:
    begin = _SIZE.size
    end = begin + _SIZE.unpack_from(body)[0]
    if end > len(body):
        raise ModelError("a damaged skeleton: its header is longer than all of it")
    try:
        return msgspec.json.decode(body[begin:end], type=Header), body[end:]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"a damaged skeleton: {str(error)[:200]}") from None


def _check(header: Header, kept: int) -> None:
    """ModelError unless the holes lie one after another within the file, and only read params that exist."""
    at, numbers, cut = 0, 0, 0
    if sum(len(hole.blocks) for hole in header.holes) > MOST_BLOCKS:
        raise ModelError("a skeleton of too many blocks")
    for hole in header.holes:
        if not isfinite(hole.scale) or hole.scale == 0 or hole.at < at or hole.end > header.size:
            raise ModelError(f"a damaged skeleton: the hole at byte {hole.at} does not fit into its file")
        if not all(block.lies_within(header.num_params) for block in hole.blocks):
            raise ModelError(f"a damaged skeleton: the hole at byte {hole.at} reads params that do not exist")
        at, numbers = hole.end, numbers + hole.count
        cut += hole.end - hole.at if hole.is_cut else 0
    if header.size != kept + cut:
        raise ModelError("a damaged skeleton: its pieces don't add up to its file")
    if numbers > 4 * header.num_params + LONGEST:
        raise ModelError("a damaged skeleton: it repeats params")
