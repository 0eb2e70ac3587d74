"""ecq-dither: entropy-coded quantization with subtractive dither (Schuchman 1964; Ziv 1985).

Both sides draw the same dither from a seed in the payload. With a real-valued, truly random one the error of a squeezed
coordinate would be uniform over a step and independent of the delta. This one is pseudo-random (seeded.py), of 2^16
levels: over them the mean error is 2^-17 step at most, beside float32's rounding, and tests find the errors uniform,
correlated neither with the delta nor from device to device. So they average out: for fleets whose devices are sampled
and keep no state. At an equal step it costs a little more than ecq; below one bit a coordinate, a lot (there,
ecq-sparse).
"""

from __future__ import annotations

import numpy as np

from .. import _core
from ..errors import CodecError
from .coded import Parsed, Quantized
from .seeded import Seeded
from .tables import ESCAPE

CONTEXT_BITS = 3  # what symbol to expect depends on the dither: a table for each sixteenth of a step, mirrored
WORTH_CONTEXTS = 20_000  # coordinates, from which on eight tables cost less than they save


class EcqDither(Seeded):
    """One to four bits a coordinate."""

    name = "ecq-dither"
    wire_id = 5
    default_step = 1.0

    def _quantize(self, x: np.ndarray, step: np.float32) -> Quantized:
        seed = self._draw(x)
        symbols = np.empty(len(x), np.uint8)
        _core.dither_quantize(x, symbols, np.float32(1) / step, seed)
        return self._count(step, seed, symbols, 1 if len(x) < WORTH_CONTEXTS else 1 << CONTEXT_BITS)

    def _contexts_of(self, seed: int, tables: int, start: int, n: int) -> np.ndarray:
        contexts = np.empty(n, np.uint8)
        _core.dither_contexts(contexts, CONTEXT_BITS, seed, start)
        return contexts

    def _check_own(self, parsed: Parsed) -> None:
        super()._check_own(parsed)
        if len(parsed.frequencies) not in (1, 1 << CONTEXT_BITS):
            raise CodecError("ecq-dither: payload has another number of tables than it can: dropped")

    def _largest(self, parsed: Parsed) -> float:
        last = int(np.flatnonzero(parsed.frequencies[:, :ESCAPE].any(axis=0)).max(initial=0))
        return ((last + 1) // 2 + 0.5) * float(parsed.step)

    def _take(self, parsed: Parsed, symbols: np.ndarray, start: int, out: np.ndarray) -> None:
        _core.dither_take(out, symbols, parsed.step, int(parsed.own[0]), start)

    def _add(self, parsed: Parsed, symbols: np.ndarray, start: int, weight: int, acc: np.ndarray) -> None:
        _core.dither_add(acc, symbols, parsed.step, weight, int(parsed.own[0]), start)
