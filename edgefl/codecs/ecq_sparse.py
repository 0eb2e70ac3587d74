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
from ..errors import UsageError
from .ecq import levels
from .entropy_coded import EntropyCoded
from .quantized import Quantized
from .step_search import clip_step


class EcqSparse(EntropyCoded):
    """Options as ecq's, and `seed`. A coordinate that is not 0 counts about `step` times the rms."""

    name = "ecq-sparse"
    wire_id = 6
    default_step = 40.0
    most_tables = 13
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
        tables = min(self.most_tables, max(1, len(x).bit_length() - 8))  # the last one codes 128 coordinates or more
        contexts = self._contexts((seed,), tables, 0, len(x))
        return Quantized(step, (seed,), symbols, contexts, _core.count_symbols(symbols, contexts, tables))

    def _energy_symbols(self, q: Quantized, x: np.ndarray) -> np.ndarray:
        """Most symbols of q are 0, too many to tell rows apart: so the symbols of x at a step of its rms."""
        fine = np.empty(len(x), np.uint8)
        _core.quantize(x, fine, 1 / clip_step(_core.rms(x)), 0.5)
        return fine

    def _contexts(self, own: tuple[int, ...], tables: int, start: int, n: int) -> np.ndarray | None:
        """The octaves, below `tables`, of the numbers drawn."""
        if tables == 1:
            return None
        contexts = np.empty(n, np.uint8)
        _core.coin_contexts(contexts, tables, own[0], start)
        return contexts

    def _levels(self, step: np.float32, own: tuple[int, ...]) -> np.ndarray:
        return levels(step)
