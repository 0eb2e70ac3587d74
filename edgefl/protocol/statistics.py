"""Statistics: what a device tells of its columns in a round of mode "profile". Both sides' half. No I/O.

    header of an update, its kind 1 | all that follows, by zlib (RFC 1950)
    layout u8 | 0 u8 | columns u16 | labels u16
    for each label    label u16 | count u64
    for each column   values u64 | sum i192 | sum of squares u256 | bins u16, then for each bin: bin i16 | count u64

All numbers are whole and little-endian, so that sums of them depend on no order. `sum` counts 2^-40, and `sum of
squares` 2^-80; values beyond ±2^60 count as ±2^60. Labels and bins are in ascending order, each at most once, and none
has a count of 0. The bins are the same on every device, four to an octave, so that no range need be known beforehand:

    bin 0        |x| < 2^-24
    bin 1 + 4·o + q, of x > 0      2^(o-24) (1 + q/4)  <=  x  <  2^(o-24) (1 + (q+1)/4), q = 0..3, the last one is open
    bin -b       as bin b, of -x
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import NamedTuple

import numpy as np

from ..errors import ProtocolError

FEATURE = "profile"  # what a round of this mode requires of a device
VALUE_BITS = 60  # before the point
LARGEST = 2.0**VALUE_BITS
SUM_BITS, SQUARE_BITS = 40, 80  # behind the point
LOWEST = -24  # octave of the first bin
BINS = 4 * 64  # of each sign
MOST_LABELS = 1024
_HEAD, _COLUMN = struct.Struct("<BBHH"), struct.Struct("<Q24s32sH")
_LABELS = np.dtype([("key", "<u2"), ("count", "<u8")])
_BINS = np.dtype([("key", "<i2"), ("count", "<u8")])
LAYOUT = 1


class Counts(NamedTuple):
    """(k,) int64 `keys` in ascending order, and (k,) int64 how often each occurs."""

    keys: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray, *, first: int = 0) -> Counts:
        """Of a dense array, whose entry 0 belongs to the key `first`."""
        (found,) = np.nonzero(counts)
        return cls(found + first, counts[found])


class Column(NamedTuple):
    """One column on one device: how many values, their sum and the sum of their squares, and their bins."""

    values: int
    total: int
    squares: int
    bins: Counts

    @property
    def mean(self) -> float:
        return math.ldexp(self.total / self.values, -SUM_BITS)

    @property
    def variance(self) -> float:
        exact = self.values * self.squares - self.total * self.total
        return math.ldexp(exact / (self.values * self.values), -SQUARE_BITS)


class Statistics(NamedTuple):
    """All that a device tells."""

    columns: list[Column]
    labels: Counts


def largest_sums(values: int) -> tuple[int, int]:
    """The largest sum and sum of squares of so many values, as they are told."""
    return values * 2 ** (VALUE_BITS + SUM_BITS), values * 2 ** (2 * VALUE_BITS + SQUARE_BITS)


def bin_edges(key: int) -> tuple[float, float]:
    """Where a bin begins and ends; an open one ends at infinity."""
    if key < 0:
        low, high = bin_edges(-key)
        return -high, -low
    if key == 0:
        return -(2.0**LOWEST), 2.0**LOWEST
    low, high = (2.0 ** (LOWEST + at // 4) * (1 + at % 4 / 4) for at in (key - 1, key))
    return low, (math.inf if key == BINS else high)


def bins_of(x: np.ndarray) -> np.ndarray:
    """The bin of each number of x, float64, all finite."""
    mantissa, exponent = np.frexp(np.abs(x))
    keys = 4 * (exponent.astype(np.int64) - 1 - LOWEST) + np.floor(8 * mantissa).astype(np.int64) - 3
    keys = np.where((keys < 1) | (mantissa == 0), 0, np.minimum(keys, BINS))
    signed: np.ndarray = np.where(x < 0, -keys, keys)
    return signed


def bound(columns: int) -> int:
    """The longest payload."""
    most = _most(columns)
    return most + most // 1000 + 64  # what zlib can't shorten takes a little more


def _most(columns: int) -> int:
    """The most bytes that zlib may make of a payload."""
    each = _COLUMN.size + (2 * BINS + 1) * _BINS.itemsize
    return _HEAD.size + MOST_LABELS * _LABELS.itemsize + columns * each


def encode(statistics: Statistics) -> bytes:
    """The payload."""
    return zlib.compress(pack(statistics))


def pack(statistics: Statistics) -> bytes:
    """What the payload has, before zlib makes it shorter."""
    columns, labels = statistics
    pieces = [_HEAD.pack(LAYOUT, 0, len(columns), len(labels.keys)), _packed(labels, _LABELS)]
    for column in columns:
        total = column.total.to_bytes(24, "little", signed=True)
        squares = column.squares.to_bytes(32, "little")
        pieces += [_COLUMN.pack(column.values, total, squares, len(column.bins.keys)), _packed(column.bins, _BINS)]
    return b"".join(pieces)


def _packed(counts: Counts, layout: np.dtype) -> bytes:
    rows = np.empty(len(counts.keys), layout)
    rows["key"], rows["count"] = counts
    return rows.tobytes()


class _Reader:
    """Takes pieces off a payload; ProtocolError where it is too short."""

    def __init__(self, payload: memoryview) -> None:
        self.rest = payload

    def take(self, size: int) -> memoryview:
        if size > len(self.rest):
            raise _refuse("it ends too early")
        piece, self.rest = self.rest[:size], self.rest[size:]
        return piece

    def counts(self, number: int, layout: np.dtype, *, most: int, span: tuple[int, int]) -> Counts:
        """`number` keys of the span, none with a count above `most`."""
        if number > span[1] - span[0] + 1:
            raise _refuse("it has more bins or labels than there are")
        rows = np.frombuffer(self.take(number * layout.itemsize), layout)
        keys, counts = rows["key"].astype(np.int64), rows["count"]
        sound = (keys >= span[0]) & (keys <= span[1]) & (counts > 0) & (counts <= most)
        if not sound.all() or (np.diff(keys) <= 0).any():
            raise _refuse("its bins or labels are out of order, or counted in vain")
        return Counts(keys, counts.astype(np.int64))


def decode(payload: bytes | memoryview, *, columns: int, most_values: int, most_labels: int) -> Statistics:
    """What a payload says; see `unpack`."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(payload, _most(columns) + 1)
    except zlib.error:
        raise _refuse("zlib can't read it") from None
    if not reader.eof or reader.unused_data:
        raise _refuse("it is too long, or ends too early")
    return unpack(data, columns=columns, most_values=most_values, most_labels=most_labels)


def unpack(data: bytes, *, columns: int, most_values: int, most_labels: int) -> Statistics:
    """What a device tells of so many columns, each with at most `most_values` values, and of at most `most_labels`
    labels in all; ProtocolError if that can't be true of any data."""
    reader = _Reader(memoryview(data))
    layout, zero, count, labels = _HEAD.unpack(reader.take(_HEAD.size))
    if (layout, zero, count) != (LAYOUT, 0, columns):
        raise _refuse(f"layout {layout} and {count} columns, not {LAYOUT} and {columns}")
    told = reader.counts(labels, _LABELS, most=most_labels, span=(0, MOST_LABELS - 1))
    if told.counts.sum() > most_labels:
        raise _refuse("it has more labels than examples")
    found = [_column(reader, most_values) for _ in range(columns)]
    if reader.rest:
        raise _refuse("it is too long")
    return Statistics(found, told)


def _column(reader: _Reader, most: int) -> Column:
    values, signed, unsigned, bins = _COLUMN.unpack(reader.take(_COLUMN.size))
    if values > most:
        raise _refuse("a column has more values than its examples")
    told = reader.counts(bins, _BINS, most=most, span=(-BINS, BINS))
    column = Column(values, int.from_bytes(signed, "little", signed=True), int.from_bytes(unsigned, "little"), told)
    if told.counts.sum() != values or not can_be(column):
        raise _refuse("a column's sums are of no data")
    return column


def can_be(column: Column) -> bool:
    """Whether any numbers within the bounds have these sums; the inequality is Cauchy and Schwarz's."""
    values, total, squares, _ = column
    most, most_squares = largest_sums(values)
    return abs(total) <= most and squares <= most_squares and total * total <= values * squares


def _refuse(why: str) -> ProtocolError:
    return ProtocolError(f"column statistics that can't be: {why}: rejected", "codec")
