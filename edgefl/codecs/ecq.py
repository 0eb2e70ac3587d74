"""ecq: entropy-coded scalar quantization. One step, rounding with a slight dead zone, a centroid for each magnitude.

Within a quarter of a bit of the rate-distortion limit for Gaussian coordinates (Gish, Pierce 1968), and better than
what is designed for them on real updates, which have heavy tails and many zeros. What rounding takes is systematic:
for error feedback.
"""

from __future__ import annotations

import struct

import numpy as np

from .. import _core
from ..errors import CodecError
from .coded import Parsed, Quantized, to_fixed
from .energy import CONTEXTS, Energies, Matrices
from .entropy_coded import EntropyCoded
from .tables import ESCAPE

DEAD_ZONE = 0.05  # with steps above 1.5 rms, where zeros are the rule, a magnitude begins so much later
FRACTION = 128  # centroids are sent in 1/128 steps
_MAGNITUDES = (np.arange(ESCAPE) + 1) // 2
_SIGNS = np.where(np.arange(ESCAPE) % 2, 1, -1)


class Ecq(EntropyCoded):
    """The default of uplinks: 0.1 to 0.2 bit a coordinate of real updates, 0.3 to 0.4 of them with feedback."""

    name = "ecq"
    wire_id = 4
    feedback = True
    OWN = struct.Struct("<3b")  # centroids of magnitudes 1, 2, above: how far from it, in 1/FRACTION steps

    def _quantize(self, x: np.ndarray, step: np.float32) -> Quantized:
        symbols = np.empty(len(x), np.uint8)
        rounding = 0.5 - (DEAD_ZONE if step > 1.5 * _core.rms(x) else 0)
        counts, excess = _core.quantize(x, symbols, np.float32(1) / step, rounding)
        found = np.array([counts[1:3].sum(), counts[3:5].sum(), counts[5:ESCAPE].sum()], np.int64)
        own = self.OWN.pack(*centroids(found, excess))
        return Quantized(step, own, symbols, None, counts[None])

    def _add_energies(self, q: Quantized, x: np.ndarray, matrices: Matrices) -> Quantized:
        energies = Energies.of(q.symbols, matrices)
        contexts = energies.contexts(np.zeros(len(x), np.uint8), 0)
        return q.with_energies(energies, contexts, _core.count_symbols(q.symbols, contexts, CONTEXTS))

    def _check_own(self, parsed: Parsed) -> None:
        if parsed.energies is None and len(parsed.frequencies) != 1:
            raise CodecError("ecq: payload with more tables than one: dropped")

    def _largest(self, parsed: Parsed) -> float:
        return float(np.abs(values_of(parsed.step, parsed.own)[occurring(parsed.frequencies)]).max(initial=0))

    def _take(self, parsed: Parsed, symbols: np.ndarray, out: np.ndarray) -> None:
        _core.take_symbols(out, symbols, values_of(parsed.step, parsed.own))

    def _add(self, parsed: Parsed, symbols: np.ndarray, weight: int, acc: np.ndarray) -> None:
        values = values_of(parsed.step, parsed.own)
        _core.add_symbols(acc, symbols, table_of(values, occurring(parsed.frequencies)) * weight)


def centroids(counts: np.ndarray, excess: np.ndarray) -> list[int]:
    """Of magnitudes 1, 2 and more, in 1/FRACTION steps: `excess` (3,), in 1/256 steps in all, over `counts` (3,)."""
    means = FRACTION / 256 * excess / np.maximum(counts, 1)
    return [min(FRACTION - 1, max(-FRACTION, round(float(mean)))) for mean in means]


def values_of(step: np.float32, centroids: tuple[float, ...] = (0, 0, 0)) -> np.ndarray:
    """(256,) float32: what each symbol stands for; `centroids` in 1/FRACTION steps."""
    shift = np.array((0, *centroids), np.float32)[np.minimum(_MAGNITUDES, 3)] / np.float32(FRACTION)
    values = np.zeros(256, np.float32)
    values[:ESCAPE] = _SIGNS * (_MAGNITUDES.astype(np.float32) + shift) * step
    return values


def occurring(frequencies: np.ndarray) -> np.ndarray:
    """(256,) bool: the symbols that have a frequency in any of the tables (K, 256)."""
    return np.asarray(frequencies.any(axis=0))


def table_of(values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """(256,) int64 of the values; those of symbols that don't occur may be too large for it, and count as 0."""
    return to_fixed(np.where(used, values, np.float32(0)))
