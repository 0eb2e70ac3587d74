"""Codecs that round by chance, so that errors average out: a seed in the payload, of which both sides draw the same.

What is drawn is pseudo-random: a hash of the seed and the coordinate's number, which repeats after 2^32 coordinates.
The seed is CRC-32Cs of the delta and the option `seed`, one of 2^32: equal deltas and options make equal errors.
Averages are over seeds, and of squeezed coordinates at a step that was not chosen by the draw: with `bits` or
`max_bytes` it is, by the little that a draw changes the length. Tensors that are kept go as the nearest float16, always
the same way off; what is too large for a symbol goes whole, without error.
"""

from __future__ import annotations

import struct

import numpy as np

from .. import _core
from ..errors import CodecError, UsageError
from .coded import Parsed, Quantized
from .entropy_coded import EntropyCoded


class Seeded(EntropyCoded):
    """Option `seed` beside ecq's: what is drawn depends on it and on the delta, so that encoding stays a function."""

    OWN = struct.Struct("<Q")  # the seed

    def __init__(
        self,
        step: float | None = None,
        bits: float | None = None,
        exact: str = "vectors",
        seed: int = 0,
        max_bytes: int | None = None,
    ) -> None:
        super().__init__(step, bits, exact, max_bytes)
        if not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise UsageError(f"{self.name}: seed is {seed!r}: give a whole number from 0 to {2**32 - 1}")
        self.seed = seed

    def _draw(self, x: np.ndarray) -> int:
        data = x.view(np.uint8)
        return _core.crc32c(data, self.seed) << 32 | _core.crc32c(data, self.seed ^ 0xFFFFFFFF)

    def _count(self, step: np.float32, seed: int, symbols: np.ndarray, tables: int) -> Quantized:
        """The quantized coordinates, with the contexts that `_contexts_of` gives for so many tables."""
        contexts = self._contexts_of(seed, tables, 0, len(symbols)) if tables > 1 else None
        return Quantized(step, self.OWN.pack(seed), symbols, contexts, _core.count_symbols(symbols, contexts, tables))

    def _contexts_of(self, seed: int, tables: int, start: int, n: int) -> np.ndarray:
        """(n,) uint8, below `tables`: the contexts of coordinates `start` on."""
        raise NotImplementedError

    def _contexts(self, parsed: Parsed, start: int, n: int) -> np.ndarray | None:
        tables = len(parsed.frequencies)
        return None if tables == 1 else self._contexts_of(int(parsed.own[0]), tables, start, n)

    def _check_own(self, parsed: Parsed) -> None:
        if not np.isfinite(np.float32(256) * parsed.step):
            raise CodecError(f"{self.name}: step is out of bounds: dropped")
