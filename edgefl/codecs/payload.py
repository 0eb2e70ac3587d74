"""A payload of an entropy-coded codec, parsed and checked: `Raw` or `Coded`. Both decode, and both accumulate.

`Coded` holds a stream whose errors show only while it is decoded. `accumulate` decodes it block by block into the sum;
when the stream proves wrong, the blocks added so far are decoded again and subtracted, which is exact in integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np

from .. import _core
from ..core.accumulator import SCALE, Accumulator
from ..errors import CodecError
from .sections import Sections
from .tables import ESCAPE

BLOCK = 65536  # coordinates decoded at a time
_NOWHERE = np.zeros(0, np.intp)


class Payload(Protocol):
    """What is common to both kinds. Either method raises CodecError if the payload is malformed."""

    def decode(self) -> np.ndarray:
        """The (P,) float32 vector that the payload stands for."""

    def accumulate(self, weight: int, accumulator: Accumulator) -> None:
        """Add `weight` times that vector; nothing is added if this raises."""


@dataclass(frozen=True)
class Raw:
    """`values` (P,) float32, written as they are."""

    values: np.ndarray

    def decode(self) -> np.ndarray:
        return self.values

    def accumulate(self, weight: int, accumulator: Accumulator) -> None:
        accumulator.add_f32(self.values.astype("<f4", copy=False).tobytes(), weight)


@dataclass(frozen=True)
class Piece:
    """Decoded `symbols` that lie in one run of the vector, at `where`. `escaped` are the vector's coordinates of the
    escapes among them, `escapes` their values. Valid until the next piece."""

    symbols: np.ndarray
    where: slice
    escaped: np.ndarray
    escapes: np.ndarray


@dataclass(frozen=True)
class Coded:
    """Symbols in a rANS stream, coordinates that are kept, and the values of escapes.

    `levels` (256,) float32: the value of each symbol. `contexts(start, n)`: the table of each of n coded coordinates,
    (n,) uint8, or None if all use table 0. `frequencies` (K, 256): the tables. `kept` and `escapes`: float32 values.
    """

    sections: Sections
    levels: np.ndarray
    contexts: Callable[[int, int], np.ndarray | None]
    frequencies: np.ndarray
    lanes: int
    stream: memoryview
    kept: np.ndarray
    escapes: np.ndarray

    def decode(self) -> np.ndarray:
        out = np.zeros(self.sections.num_params, np.float32)
        for piece in self._pieces():
            _core.take_symbols(out[piece.where], piece.symbols, self.levels)
            out[piece.escaped] = piece.escapes
        for where, values in self.sections.scatter(self.kept):
            out[where] = values
        return out

    def accumulate(self, weight: int, accumulator: Accumulator) -> None:
        occurring = self.frequencies.any(axis=0)
        levels = np.where(occurring, self.levels, np.float32(0))  # a level that does not occur may exceed int64
        peak = max(float(np.abs(values).max(initial=0)) for values in (levels, self.kept, self.escapes))
        with accumulator.admit(peak, weight) as acc:
            table = to_fixed(levels) * weight
            added = 0
            try:
                for piece in self._pieces():
                    _add(acc, piece, table, weight)
                    added += 1
            except CodecError:
                for piece in islice(self._pieces(), added):
                    _add(acc, piece, -table, -weight)
                raise
            for where, values in self.sections.scatter(self.kept):
                acc[where] += to_fixed(values) * weight

    def _pieces(self) -> Iterator[Piece]:
        """The whole stream, one block after another, and within a block one run after another."""
        num_coded = self.sections.num_coded
        symbols = np.empty(min(BLOCK, num_coded), np.uint8)
        used = 0
        try:
            stream = _core.RansDecoder(self.stream, self.frequencies, self.lanes)
            for start in range(0, num_coded, BLOCK):
                block = symbols[: num_coded - start]
                stream.next(block, self.contexts(start, len(block)))
                for inside, where in self.sections.pieces(start, start + len(block)):
                    part = block[inside]
                    escaped = np.flatnonzero(part == ESCAPE) + where.start if len(self.escapes) else _NOWHERE
                    escapes = self.escapes[used : used + len(escaped)]
                    used += len(escaped)
                    if len(escapes) < len(escaped):
                        raise CodecError("payload has fewer escapes than its symbols say: dropped")
                    yield Piece(part, where, escaped, escapes)
            stream.finish()
        except ValueError as error:
            raise CodecError(f"payload is malformed: {error}: dropped") from None
        if used < len(self.escapes):
            raise CodecError("payload has more escapes than its symbols say: dropped")


def _add(acc: np.ndarray, piece: Piece, table: np.ndarray, weight: int) -> None:
    """Add to `acc` (P,) int64 the piece's coordinates: `table` (256,) int64 for symbols, `weight` times the escapes."""
    _core.add_symbols(acc[piece.where], piece.symbols, table)
    acc[piece.escaped] += to_fixed(piece.escapes) * weight


def to_fixed(values: np.ndarray) -> np.ndarray:
    """float32 as the accumulator's int64 fixed point."""
    return np.rint(values.astype(np.float64) * SCALE).astype(np.int64)
