"""ecq-dither: entropy-coded quantization with subtractive dither (Ziv 1985), exactly unbiased.

Both sides draw the same dither from a seed in the payload. The error is uniform, independent of the delta and of other
devices' errors, and averages out: for fleets whose devices are sampled and keep no state. At an equal step it costs
a little more than ecq; below one bit a coordinate, a lot.
"""

from __future__ import annotations

import struct

import numpy as np

from .. import _core
from ..errors import CodecError, UsageError
from .entropy_coded import EntropyCoded, Parsed, Quantized
from .tables import ESCAPE

CONTEXT_BITS = 3  # what symbol to expect depends on the dither: a table for each sixteenth of a step
WORTH_CONTEXTS = 20_000  # coordinates, from which on sixteen tables cost less than they save


class EcqDither(EntropyCoded):
    """Option `seed` beside ecq's: the dither depends on it and on the delta."""

    name = "ecq-dither"
    wire_id = 5
    default_step = 1.0
    OWN = struct.Struct("<Q")  # the dither's seed

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
            raise UsageError(f"ecq-dither: seed is {seed!r}: give a whole number from 0 to {2**32 - 1}")
        self.seed = seed

    def _quantize(self, x: np.ndarray, step: np.float32) -> Quantized:
        data = x.view(np.uint8)
        seed = _core.crc32c(data, self.seed) << 32 | _core.crc32c(data, self.seed ^ 0xFFFFFFFF)
        symbols = np.empty(len(x), np.uint8)
        _core.dither_quantize(x, symbols, np.float32(1) / step, seed)
        own = self.OWN.pack(seed)
        if len(x) < WORTH_CONTEXTS:
            return Quantized(step, own, symbols, None, _core.count_symbols(symbols, None, 1))
        contexts = np.empty(len(x), np.uint8)
        _core.dither_contexts(contexts, CONTEXT_BITS, seed, 0)
        return Quantized(step, own, symbols, contexts, _core.count_symbols(symbols, contexts, 1 << CONTEXT_BITS))

    def _contexts(self, parsed: Parsed, start: int, n: int) -> np.ndarray | None:
        if len(parsed.frequencies) == 1:
            return None
        contexts = np.empty(n, np.uint8)
        _core.dither_contexts(contexts, CONTEXT_BITS, int(parsed.own[0]), start)
        return contexts

    def _check_own(self, parsed: Parsed) -> None:
        if len(parsed.frequencies) not in (1, 1 << CONTEXT_BITS):
            raise CodecError("ecq-dither: payload has another number of tables than it can: dropped")
        if not np.isfinite(np.float32(ESCAPE) * parsed.step):
            raise CodecError("ecq-dither: step is out of bounds: dropped")

    def _largest(self, parsed: Parsed) -> float:
        last = int(np.flatnonzero(parsed.frequencies[:, :ESCAPE].any(axis=0)).max(initial=0))
        return ((last + 1) // 2 + 0.5) * float(parsed.step)

    def _take(self, parsed: Parsed, symbols: np.ndarray, start: int, out: np.ndarray) -> None:
        _core.dither_take(out, symbols, parsed.step, int(parsed.own[0]), start)

    def _add(self, parsed: Parsed, symbols: np.ndarray, start: int, weight: int, acc: np.ndarray) -> None:
        _core.dither_add(acc, symbols, parsed.step, weight, int(parsed.own[0]), start)
