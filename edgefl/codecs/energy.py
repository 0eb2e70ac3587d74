"""How much of an update lies in each row and column of its weights: what tells rANS what to expect of a coordinate.

Dead inputs and units, and those that learn most, make the coordinates of a row or column alike. Each has a class, the
octave of its mean magnitude; a coordinate's context is the sum of its row's and its column's, as magnitudes are nearly
the product of the two. Classes are side information of a few per cent; together they take a third to a half off the
bytes of real updates. What has been decoded before (the row above, coordinates to the left) adds nothing to them.

    groups u32 | classes' two tables, rows' and columns' | length u32 | classes, rANS

A bit of `groups` says that a context has another table than the one before it. Which axes have classes, and how many,
follows from the plan: those that sum up SUMMED coordinates or more.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .. import _core
from ..errors import CodecError
from .tables import MAX_TABLES, best_tables, read_tables

CONTEXTS = 32
SUMMED = 8  # coordinates; of fewer, a class says too little
MOST = 15  # the largest class; 0 is a row or column of zeros, CENTRE one of the mean
CENTRE = 8
DEAD = -64  # in a sum of octaves, whatever the others are
_HEAD = struct.Struct("<I")
Matrices = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Energies:
    """Classes (R,) and (C,) uint8 of the rows and columns of each of `matrices` (R, C), which lie in one run."""

    matrices: Matrices
    classes: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, symbols: np.ndarray, matrices: Matrices) -> Energies:
        """By the magnitudes of the symbols (n,)."""
        sums, at = [], 0
        for rows, columns in matrices:
            sums.append(_core.energy_sums(symbols[at : at + rows * columns], rows, columns))
            at += rows * columns
        mean = sum(int(by_row.sum()) for by_row, _ in sums) / max(1, at)
        classes = []
        for (rows, columns), (by_row, by_column) in zip(matrices, sums, strict=True):
            classes.append((
                _octaves(by_row, columns, mean),
                _octaves(by_column, rows, int(by_row.sum()) / max(1, rows * columns)),
            ))  # fmt: skip
        return cls(matrices, classes)

    def contexts(self, contexts: np.ndarray, start: int, groups: np.ndarray | None = None) -> np.ndarray:
        """`contexts` (n,) uint8 themselves, of coordinates `start` on, with the octaves of rows and columns added to
        them; with `groups`, the numbers of their tables."""
        before, stop = 0, start + len(contexts)
        for (rows, columns), (by_row, by_column) in zip(self.matrices, self.classes, strict=True):
            first, last = max(start, before), min(stop, before + rows * columns)
            if first < last:
                part = contexts[first - start : last - start]
                _core.energy_contexts(part, _shift(by_row, 0), _shift(by_column, CENTRE), groups, first - before)
            before += rows * columns
        return contexts

    def to_bytes(self) -> bytes:
        """The classes' tables, their length, and they."""
        symbols, contexts = self._flat()
        tables, frequencies, _ = best_tables(_core.count_symbols(symbols, contexts, 2))
        stream = _core.rans_encode(symbols, contexts, frequencies, 1)
        return tables + _HEAD.pack(len(stream)) + stream

    @classmethod
    def from_bytes(cls, data: memoryview, matrices: Matrices) -> tuple[Energies, int]:
        """What `to_bytes` wrote, and how many bytes it took; CodecError or ValueError if malformed."""
        empty = [(np.full(rows, CENTRE, np.uint8), np.full(columns, CENTRE, np.uint8)) for rows, columns in matrices]
        energies = cls(matrices, empty)
        symbols, contexts = energies._flat()
        frequencies, at = read_tables(data)
        if len(frequencies) != 2:
            raise CodecError("payload with other tables of energies than two: dropped")
        size = _HEAD.unpack_from(data, at)[0]
        at += _HEAD.size
        if size > len(data) - at:
            raise CodecError("payload ends within the energies: dropped")
        stream = _core.RansDecoder(data[at : at + size], frequencies, 1)
        stream.next(symbols, contexts)
        stream.finish()
        if symbols.max(initial=0) > MOST:
            raise CodecError("payload with energies that no row or column has: dropped")
        for part in energies._classed():
            part[:], symbols = symbols[: len(part)], symbols[len(part) :]
        return energies, at + size

    def _classed(self) -> Iterator[np.ndarray]:
        """The classes that are sent, rows' and columns' of each matrix."""
        for (rows, columns), (by_row, by_column) in zip(self.matrices, self.classes, strict=True):
            yield by_row[: rows if columns >= SUMMED else 0]
            yield by_column[: columns if rows >= SUMMED else 0]

    def _flat(self) -> tuple[np.ndarray, np.ndarray]:
        """The classes that are sent, one after another, and the contexts of their own: 0 for a row, 1 for a column."""
        parts = list(self._classed())
        contexts = [np.full(len(part), number % 2, np.uint8) for number, part in enumerate(parts)]
        nothing = np.zeros(0, np.uint8)
        return np.concatenate([nothing, *parts]), np.concatenate([nothing, *contexts])


def _octaves(sums: np.ndarray, summed: int, mean: float) -> np.ndarray:
    """Classes of rows whose `summed` magnitudes add up to `sums` (R,), where `mean` is that of one."""
    if summed < SUMMED:
        return np.full(len(sums), CENTRE, np.uint8)
    classes = np.zeros(len(sums), np.uint8)
    live = sums > 0
    octaves = np.rint(np.log2(sums[live] / (summed * mean)))
    classes[live] = np.clip(octaves + CENTRE, 1, MOST)
    return classes


def _shift(classes: np.ndarray, centre: int) -> np.ndarray:
    """(R,) int8 octaves of the classes, `centre` less."""
    return np.where(classes, classes.astype(np.int8) - np.int8(centre), np.int8(DEAD))


def group(counts: np.ndarray) -> tuple[np.ndarray, float]:
    """(CONTEXTS,) uint8: which table each context is to use, of how often each symbol occurs in it, (CONTEXTS, 256).

    Neighbours share one where telling them apart saves less than a table takes. Also about the bits of all symbols and
    tables.
    """
    cost = _costs(counts)
    best, came = np.full(CONTEXTS + 1, np.inf), []  # of the contexts before each, with one table more each time
    best[0] = 0
    totals = []
    for _ in range(MAX_TABLES):
        total = best[:, None] + cost
        came.append(total.argmin(axis=0))
        best = total.min(axis=0)
        totals.append(float(best[CONTEXTS]))
    tables = int(np.argmin(totals)) + 1
    groups, stop = np.zeros(CONTEXTS, np.uint8), CONTEXTS
    for number in range(tables - 1, -1, -1):
        start = int(came[number][stop])
        groups[start:stop] = number
        stop = start
    return groups, totals[tables - 1]


def _costs(counts: np.ndarray) -> np.ndarray:
    """(CONTEXTS + 1, CONTEXTS + 1): about the bits of contexts i to j - 1 with one table, and of that; infinite of
    none."""
    used = int(np.flatnonzero(counts.any(axis=0)).max(initial=0)) + 1
    sums = np.zeros((CONTEXTS + 1, used))
    counts[:, :used].cumsum(axis=0, out=sums[1:])
    i, j = np.triu_indices(CONTEXTS + 1, 1)
    found = sums[j] - sums[i]
    total = found.sum(axis=1)
    bits = total * np.log2(np.maximum(total, 1)) - (found * np.log2(np.maximum(found, 1))).sum(axis=1)
    cost = np.full((CONTEXTS + 1, CONTEXTS + 1), np.inf)
    cost[i, j] = bits + 8 * np.minimum(4 + np.count_nonzero(found, axis=1), 12)
    return cost


def groups_to_bytes(groups: np.ndarray) -> bytes:
    """`groups` (CONTEXTS,), each the one before it or one more."""
    return _HEAD.pack(sum(1 << i for i in range(1, CONTEXTS) if groups[i] != groups[i - 1]))


def groups_from_bytes(data: memoryview) -> tuple[np.ndarray, int]:
    """What `groups_to_bytes` wrote, and how many bytes it took."""
    mask = _HEAD.unpack_from(data)[0]
    steps = np.array([mask >> i & 1 for i in range(CONTEXTS)], np.uint8)
    return (steps.cumsum(dtype=np.uint8) - steps[0]).astype(np.uint8), _HEAD.size
