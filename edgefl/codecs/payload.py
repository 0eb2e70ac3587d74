"""A payload of an entropy-coded codec, parsed and checked: `Raw` or `Coded`. Both decode, and both accumulate.

`Coded` holds a stream whose errors show only while it is decoded. `accumulate` decodes it block by block into the sum;
when the stream proves wrong, the blocks added so far are decoded again and subtracted, which is exact in integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np

from .. import _core
from ..core.accumulator import Accumulator
from ..errors import CodecError
from .places import Places
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
    """Decoded `symbols`, from number `start` of the stream on. `escaped` are the vector's coordinates of the escapes
    among them, `escapes` their values. Valid until the next piece."""

    start: int
    symbols: np.ndarray
    escaped: np.ndarray
    escapes: np.ndarray


@dataclass(frozen=True)
class Coded:
    """Symbols in a rANS stream, coordinates that are kept, and the values of escapes.

    `places`: what the symbols stand for. `levels` (256,) float32: the value of each symbol, 0 for symbol 0.
    `frequencies` (K, 256): the tables. `kept` and `escapes`: float32 values.
    """

    sections: Sections
    places: Places
    levels: np.ndarray
    frequencies: np.ndarray
    lanes: int
    stream: memoryview
    kept: np.ndarray
    escapes: np.ndarray

    def decode(self) -> np.ndarray:
        out = np.zeros(self.sections.num_params, np.float32)
        for piece in self._pieces():
            self.places.take(out, piece.start, piece.symbols, self.levels)
            if len(piece.escaped):
                out[piece.escaped] = piece.escapes
        for where, values in self.sections.scatter(self.kept):
            out[where] = values
        return out

    def accumulate(self, weight: int, accumulator: Accumulator) -> None:
        levels = self.levels.copy()
        _core.only_occurring(levels, self.frequencies)  # others may exceed int64
        table, peak = _core.to_fixed(levels, weight)
        kept, kept_peak = _core.to_fixed(self.kept, weight)
        peak = max(peak, kept_peak, _core.peak_f32(self.escapes.view(np.uint8)))
        with accumulator.admit(peak, weight) as acc:
            if isinstance(self.places, _core.Live) and not len(self.escapes):
                self._add_live(acc, self.places, table)
            else:
                self._add_pieces(acc, table, weight)
            for where, values in self.sections.scatter(kept):
                acc[where] += values

    def _add_live(self, acc: np.ndarray, live: _core.Live, table: np.ndarray) -> None:
        """Add all symbols to `acc` (P,) int64 in one call, beside which other threads run; CodecError adds nothing."""
        added = 0
        try:
            stream = _core.RansDecoder(self.stream, self.frequencies, self.lanes)
            added = _core.add_stream(stream, live, acc, table, live.count)
            if added < live.count:
                raise ValueError("the stream ends too early")
            stream.finish()
        except ValueError as error:
            if added:
                again = _core.RansDecoder(self.stream, self.frequencies, self.lanes)
                _core.add_stream(again, live, acc, -table, added)
            raise CodecError(f"payload is malformed: {error}: dropped") from None

    def _add_pieces(self, acc: np.ndarray, table: np.ndarray, weight: int) -> None:
        """The same, piece by piece."""
        added = 0
        try:
            for piece in self._pieces():
                self._add(acc, piece, table, weight)
                added += 1
        except CodecError:
            for piece in islice(self._pieces(), added):
                self._add(acc, piece, -table, -weight)
            raise

    def _add(self, acc: np.ndarray, piece: Piece, table: np.ndarray, weight: int) -> None:
        """Add to `acc` (P,) int64 the piece's coordinates: `table` (256,) int64 for symbols, `weight` times escapes."""
        self.places.add(acc, piece.start, piece.symbols, table)
        if len(piece.escaped):
            acc[piece.escaped] += _core.to_fixed(piece.escapes, weight)[0]

    def _pieces(self) -> Iterator[Piece]:
        """The whole stream, one block after another."""
        count = self.places.count
        symbols = np.empty(min(BLOCK, count), np.uint8)
        used = 0
        try:
            stream = _core.RansDecoder(self.stream, self.frequencies, self.lanes)
            for start in range(0, count, BLOCK):
                block = symbols[: count - start]
                stream.next(block, self.places.contexts(start, len(block)))
                escaped = _NOWHERE
                if len(self.escapes):
                    escaped = self.places.coordinates(start, np.flatnonzero(block == ESCAPE))
                escapes = self.escapes[used : used + len(escaped)]
                used += len(escaped)
                if len(escapes) < len(escaped):
                    raise CodecError("payload has fewer escapes than its symbols say: dropped")
                yield Piece(start, block, escaped, escapes)
            stream.finish()
        except ValueError as error:
            raise CodecError(f"payload is malformed: {error}: dropped") from None
        if used < len(self.escapes):
            raise CodecError("payload has more escapes than its symbols say: dropped")
