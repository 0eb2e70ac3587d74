"""ecq-sparse: a few coordinates, a step or two each, for links of 0.05 to 0.3 bit a coordinate. Right on average.

Stochastic rounding: of |x| = 0.02 steps one coordinate in fifty becomes a whole step, and the mean error is that of the
coin's 24 bits and of float32 (seeded.py says what that leaves out). The coin is known to both sides, so that most
coordinates' symbol is all but certain beforehand and costs next to nothing. No state on the device, unlike error
feedback, whose residual takes 1/p rounds to go out: at steps of tens of rms that is the better bargain by far.
"""

from __future__ import annotations

import numpy as np

from .. import _core
from ..errors import CodecError
from .coded import Parsed, Quantized
from .ecq import occurring, table_of, values_of
from .energy import CONTEXTS, Energies, Matrices
from .seeded import Seeded
from .step_search import clip_step

MOST_TABLES = 13


class EcqSparse(Seeded):
    """`step` is about how many times the rms a surviving coordinate counts."""

    name = "ecq-sparse"
    wire_id = 6
    default_step = 40.0
    energies = True

    def _quantize(self, x: np.ndarray, step: np.float32) -> Quantized:
        seed = self._draw(x)
        symbols = np.empty(len(x), np.uint8)
        _core.coin_quantize(x, symbols, np.float32(1) / step, seed)
        tables = min(MOST_TABLES, max(1, len(x).bit_length() - 8))  # of the last one's coordinates, 128 at least
        return self._count(step, seed, symbols, tables)

    def _add_energies(self, q: Quantized, x: np.ndarray, matrices: Matrices) -> Quantized:
        """What survives is too little to tell rows apart: energies are those of x itself, in steps of its rms."""
        fine = np.empty(len(x), np.uint8)
        _core.quantize(x, fine, 1 / clip_step(_core.rms(x)), 0.5)
        energies = Energies.of(fine, matrices)
        seed = self.OWN.unpack(q.own)[0]
        contexts = energies.contexts(self._contexts_of(seed, MOST_TABLES, 0, len(x)), 0)
        return q.with_energies(energies, contexts, _core.count_symbols(q.symbols, contexts, CONTEXTS))

    def _contexts(self, parsed: Parsed, start: int, n: int) -> np.ndarray | None:
        if parsed.energies is None:
            return super()._contexts(parsed, start, n)
        coins = self._contexts_of(int(parsed.own[0]), MOST_TABLES, start, n)
        return parsed.energies.contexts(coins, start, parsed.groups)

    def _contexts_of(self, seed: int, tables: int, start: int, n: int) -> np.ndarray:
        contexts = np.empty(n, np.uint8)
        _core.coin_contexts(contexts, tables, seed, start)
        return contexts

    def _check_own(self, parsed: Parsed) -> None:
        super()._check_own(parsed)
        if parsed.energies is None and len(parsed.frequencies) > MOST_TABLES:
            raise CodecError("ecq-sparse: payload with more tables than it can have: dropped")

    def _largest(self, parsed: Parsed) -> float:
        return float(np.abs(values_of(parsed.step)[occurring(parsed.frequencies)]).max(initial=0))

    def _take(self, parsed: Parsed, symbols: np.ndarray, start: int, out: np.ndarray) -> None:
        _core.take_symbols(out, symbols, values_of(parsed.step))

    def _add(self, parsed: Parsed, symbols: np.ndarray, start: int, weight: int, acc: np.ndarray) -> None:
        _core.add_symbols(acc, symbols, table_of(values_of(parsed.step), occurring(parsed.frequencies)) * weight)
