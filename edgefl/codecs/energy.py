"""Energies: how much of an update lies in each row and column of its matrices. They tell rANS what symbols to expect.

Coordinates of one row are alike, and so are those of one column: some inputs and units are dead, others learn most.
Each row and column has a class, the octave of its mean magnitude:

    row class     octave(mean of the row / mean of all matrices)
    column class  octave(mean of the column / mean of its matrix)
    octave(q)     0 if q = 0, else clip(CENTRE + round(log2 q), 1, MOST)

A magnitude is nearly the product of its row's and its column's mean, so the context of a coordinate is a sum of
octaves, cut to 0..31. Neighbouring contexts with similar statistics share a frequency table.

    context = base + row class + column class - CENTRE

The encoder sends the classes, which are a few per cent of the payload. They save a third to a half of the bytes of real
updates. Adding already decoded neighbours (the row above, coordinates to the left) to the context saved nothing more.

    groups u32 | frequency tables of row classes and of column classes | length u32 | rANS stream of the classes

Bit i of `groups` says that context i uses another table than context i - 1. Which axes have classes, and how many,
follows from the plan: those whose rows (or columns) have SUMMED coordinates or more.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from .. import _core
from ..errors import CodecError
from .reader import Reader
from .tables import best_tables

CONTEXTS = 32
SUMMED = 8  # the mean of fewer coordinates says too little
MOST = 15  # the largest class
CENTRE = 8  # the class of a mean magnitude
DEAD = -64  # the octave of class 0: low enough to make every sum 0
_U32 = struct.Struct("<I")
Matrices = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Energies:
    """The classes of `matrices`, whose coordinates follow one another: (R,) and (C,) uint8 for each (R, C)."""

    matrices: Matrices
    classes: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, symbols: np.ndarray, matrices: Matrices) -> Energies:
        """The classes by the magnitudes of `symbols` (n,), those of all matrices."""
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
        """Changes `contexts` (n,) uint8, the base of coordinates `start` on, to the contexts, and returns them.

        With `groups` (CONTEXTS,), each becomes groups[context], the number of its table.
        """
        before, stop = 0, start + len(contexts)
        for (rows, columns), (by_row, by_column) in zip(self.matrices, self.shifts, strict=True):
            first, last = max(start, before), min(stop, before + rows * columns)
            if first < last:
                part = contexts[first - start : last - start]
                _core.energy_contexts(part, by_row, by_column, groups, first - before)
            before += rows * columns
        return contexts

    @cached_property
    def shifts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """What rows and columns add to a context: (R,) and (C,) int8 for each matrix. The classes are final by then."""
        return [(_shift(by_row, 0), _shift(by_column, CENTRE)) for by_row, by_column in self.classes]

    def to_bytes(self) -> bytes:
        """The class tables, the stream's length, and the class stream."""
        symbols, contexts = self._flat()
        tables, frequencies, _ = best_tables(_core.count_symbols(symbols, contexts, 2))
        stream = _core.rans_encode(symbols, contexts, frequencies, 1)
        return tables + _U32.pack(len(stream)) + stream

    @classmethod
    def read(cls, reader: Reader, matrices: Matrices) -> Energies:
        """What `to_bytes` wrote for these matrices; CodecError if malformed."""
        layout = _layout(tuple(matrices))
        try:
            classes, size = _core.read_classes(reader.rest, layout.kinds)
        except ValueError as error:
            raise CodecError(str(error)) from None
        reader.take(size)
        return cls(matrices, layout.classes(classes))

    def _flat(self) -> tuple[np.ndarray, np.ndarray]:
        """The classes that are sent, one after another, and their own contexts."""
        layout = _layout(tuple(self.matrices))
        sent = (c for pair, sizes in zip(self.classes, layout.sent, strict=True)
                for c, size in zip(pair, sizes, strict=True) if size)  # fmt: skip
        return np.concatenate([np.zeros(0, np.uint8), *sent]), layout.kinds


class _Layout:
    """Which classes are sent, one after another: for each matrix those of rows, then those of columns. `sent` has their
    numbers, 0 for an axis that has none; `kinds` their own contexts, 0 for a row and 1 for a column."""

    def __init__(self, matrices: Matrices) -> None:
        self._matrices = matrices
        self.sent = [(r if c >= SUMMED else 0, c if r >= SUMMED else 0) for r, c in matrices]
        self.kinds = np.repeat(np.tile(np.array([0, 1], np.uint8), len(self.sent)), np.ravel(self.sent).astype(int))

    def classes(self, symbols: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of all rows and columns, if `symbols` are those that were sent."""
        found, at = [], 0
        for (rows, columns), (sent_rows, sent_columns) in zip(self._matrices, self.sent, strict=True):
            middle, end = at + sent_rows, at + sent_rows + sent_columns
            found.append((
                symbols[at:middle] if sent_rows else np.full(rows, CENTRE, np.uint8),
                symbols[middle:end] if sent_columns else np.full(columns, CENTRE, np.uint8),
            ))  # fmt: skip
            at = end
        return found


_layout = lru_cache(maxsize=16)(_Layout)


def _octaves(sums: np.ndarray, summed: int, mean: float) -> np.ndarray:
    """The classes of rows, each of `summed` magnitudes that add up to `sums` (R,), relative to a `mean` magnitude."""
    if summed < SUMMED:
        return np.full(len(sums), CENTRE, np.uint8)
    classes = np.zeros(len(sums), np.uint8)
    live = sums > 0
    octaves = np.rint(np.log2(sums[live] / (summed * mean)))
    classes[live] = np.clip(octaves + CENTRE, 1, MOST)
    return classes


def _shift(classes: np.ndarray, centre: int) -> np.ndarray:
    """(R,) int8: classes - centre; DEAD for class 0."""
    shift: np.ndarray = np.where(classes, classes.astype(np.int8) - np.int8(centre), np.int8(DEAD))
    return shift


def group(counts: np.ndarray) -> tuple[np.ndarray, float]:
    """The cheapest assignment of contexts to at most MAX_TABLES tables, and about the bits of its symbols and tables.

    `counts` (CONTEXTS, 256): how often each symbol occurs in each context. The assignment (CONTEXTS,) uint8 has one
    table for each run of neighbouring contexts, found by dynamic programming over where the runs end.
    """
    return _core.group_contexts(counts)


def groups_to_bytes(groups: np.ndarray) -> bytes:
    """`groups` (CONTEXTS,), which begin with 0 and rise by 0 or 1, as a mask of where they rise."""
    return _U32.pack(sum(1 << i for i in range(1, CONTEXTS) if groups[i] != groups[i - 1]))


def read_groups(reader: Reader) -> np.ndarray:
    """The groups that `groups_to_bytes` wrote."""
    (mask,) = reader.unpack(_U32)
    return _core.read_groups(mask)
