"""ecq-sparse: stochastic rounding to a few coordinates of a step or two, for links of 0.05 to 0.3 bit a coordinate.

With a step of 50, one in fifty coordinates of |x| = 1 becomes a whole step and the others 0: the mean over draws is x.
Encoder and decoder draw the same numbers (src/kernels/coin.c), from a seed in the payload. So the decoder knows for
most coordinates that a step was unlikely, and their zeros cost next to nothing.

The device keeps no state. Under error feedback a residual goes out over 1/p rounds, if a device takes part with
probability p. At steps of tens of rms, unbiased rounding costs less accuracy than that delay.

How far "unbiased" goes: the seed is two CRC-32Cs of the delta, with the option `seed`, so equal deltas and options make
equal errors. The mean holds over seeds, at a step that the draw did not influence. With `bits` or `max_bytes` the draw
does influence the step, because it changes the length a little. Tensors that are kept are rounded to the nearest
float16, always in the same direction. A coordinate too large for a symbol is sent whole.
"""

from __future__ import annotations

import struct

import numpy as np

from .. import _core
from ..errors import CodecError, UsageError
from .coded import Parsed, Quantized
from .ecq import occurring, table_of, values_of
from .energy import CONTEXTS, Energies, Matrices
from .entropy_coded import EntropyCoded
from .step_search import clip_step

MOST_TABLES = 13


class EcqSparse(EntropyCoded):
    """Options as ecq's, and `seed`. A coordinate that is not 0 counts about `step` times the rms."""

    name = "ecq-sparse"
    wire_id = 6
    default_step = 40.0
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

    def _quantize(self, x: np.ndarray, step: np.float32) -> Quantized:
        data = x.view(np.uint8)
        seed = _core.crc32c(data, self.seed) << 32 | _core.crc32c(data, self.seed ^ 0xFFFFFFFF)
        symbols = np.empty(len(x), np.uint8)
        _core.coin_quantize(x, symbols, np.float32(1) / step, seed)
        tables = min(MOST_TABLES, max(1, len(x).bit_length() - 8))  # the last one codes 128 coordinates or more
        contexts = _octaves(seed, tables, 0, len(x)) if tables > 1 else None
        return Quantized(step, self.OWN.pack(seed), symbols, contexts, _core.count_symbols(symbols, contexts, tables))

    def _add_energies(self, q: Quantized, x: np.ndarray, matrices: Matrices) -> Quantized:
        """Too few symbols are not 0 to tell rows apart, so the energies are those of x, in steps of its rms."""
        fine = np.empty(len(x), np.uint8)
        _core.quantize(x, fine, 1 / clip_step(_core.rms(x)), 0.5)
        energies = Energies.of(fine, matrices)
        seed = self.OWN.unpack(q.own)[0]
        contexts = energies.contexts(_octaves(seed, MOST_TABLES, 0, len(x)), 0)
        return q.with_energies(energies, contexts, _core.count_symbols(q.symbols, contexts, CONTEXTS))

    def _contexts(self, parsed: Parsed, start: int, n: int) -> np.ndarray | None:
        seed, tables = int(parsed.own[0]), len(parsed.frequencies)
        if parsed.energies is not None:
            return parsed.energies.contexts(_octaves(seed, MOST_TABLES, start, n), start, parsed.groups)
        return None if tables == 1 else _octaves(seed, tables, start, n)

    def _check_own(self, parsed: Parsed) -> None:
        if parsed.energies is None and len(parsed.frequencies) > MOST_TABLES:
            raise CodecError("ecq-sparse: payload with more tables than it can have: dropped")

    def _largest(self, parsed: Parsed) -> float:
        return float(np.abs(values_of(parsed.step)[occurring(parsed.frequencies)]).max(initial=0))

    def _take(self, parsed: Parsed, symbols: np.ndarray, out: np.ndarray) -> None:
        _core.take_symbols(out, symbols, values_of(parsed.step))

    def _add(self, parsed: Parsed, symbols: np.ndarray, weight: int, acc: np.ndarray) -> None:
        _core.add_symbols(acc, symbols, table_of(values_of(parsed.step), occurring(parsed.frequencies)) * weight)


def _octaves(seed: int, tables: int, start: int, n: int) -> np.ndarray:
    """(n,) uint8 contexts of coordinates `start` on, each below `tables`: the octaves of the numbers drawn."""
    contexts = np.empty(n, np.uint8)
    _core.coin_contexts(contexts, tables, seed, start)
    return contexts
