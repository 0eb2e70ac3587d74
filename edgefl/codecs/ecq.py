"""ecq: entropy-coded scalar quantization, with one step, a slight dead zone, and a centroid for each magnitude.

It is within a quarter of a bit of the rate-distortion limit for Gaussian coordinates (Gish, Pierce 1968). On real
updates, which have heavy tails and many zeros, it takes fewer bytes than the quantizers designed for Gaussians.
Rounding to the nearest level errs systematically, so a device carries the error over to its next update (feedback.py).
"""

from __future__ import annotations

import struct

import numpy as np

from .. import _core
from .entropy_coded import EntropyCoded
from .quantized import Quantized
from .tables import ESCAPE

DEAD_ZONE = 0.05  # at steps above 1.5 rms most symbols are 0; each magnitude then begins this much of a step later
FRACTION = 128  # centroids are sent in 1/128 steps
_MAGNITUDES = (np.arange(ESCAPE, dtype=np.float32) + 1) // 2
_SIGNS = np.where(np.arange(ESCAPE) % 2, 1, -1).astype(np.float32)
_CENTROID = np.minimum(_MAGNITUDES, 3).astype(np.intp)


class Ecq(EntropyCoded):
    """The default for uplinks: 0.1 to 0.2 bit a coordinate of real updates, 0.3 to 0.4 with error feedback."""

    name = "ecq"
    wire_id = 4
    feedback = True
    FORMS = ("live",)
    OWN = struct.Struct("<3b")  # centroids of magnitudes 1, 2, and above: their distance from it, in 1/FRACTION steps

    def _quantize(self, x: np.ndarray, step: np.float32) -> Quantized:
        symbols = np.empty(len(x), np.uint8)
        rounding = 0.5 - (DEAD_ZONE if step > 1.5 * _core.rms(x) else 0)
        counts, excess = _core.quantize(x, symbols, np.float32(1) / step, rounding)
        found = np.array([counts[1:3].sum(), counts[3:5].sum(), counts[5:ESCAPE].sum()], np.int64)
        return Quantized(step, _centroids(found, excess), symbols, None, counts[None])

    def _levels(self, step: np.float32, own: tuple[int, ...]) -> np.ndarray:
        return levels(step, own)


def _centroids(counts: np.ndarray, excess: np.ndarray) -> tuple[int, ...]:
    """Of magnitudes 1, 2 and above, in 1/FRACTION steps: the mean of `excess` (3,), in 1/256 steps, over `counts`."""
    means = FRACTION / 256 * excess / np.maximum(counts, 1)
    return tuple(min(FRACTION - 1, max(-FRACTION, round(float(mean)))) for mean in means)


def levels(step: np.float32, centroids: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
    """(256,) float32, the value of each symbol: sign (k + c / FRACTION) step for magnitude k and its centroid c.

    The escape's entry is 0.
    """
    shift = np.array((0, *centroids), np.float32)[_CENTROID] / np.float32(FRACTION)
    values = np.zeros(256, np.float32)
    values[:ESCAPE] = _SIGNS * (_MAGNITUDES + shift) * step
    return values
