"""ecq-tcq: trellis-coded quantization before the entropy coder, for the slowest links: ecq's distortion in a sixth of a
bit less, for ten times its work at the encoder.

Levels of one parity are admitted by each state of a trellis, which the levels themselves move (src/codecs/tcq.h): a
denser packing than any scalar quantizer's, within 0.1 bit of the rate-distortion limit for Gaussian coordinates.
"""

from __future__ import annotations

import numpy as np

from .. import _core
from .coded import Parsed, Quantized
from .ecq import Ecq, centroids
from .entropy_coded import BLOCK
from .tables import ESCAPE

LAMBDA = 0.1  # squared steps that a bit is worth
_FREE = np.zeros((2, 256), np.float32)


class EcqTcq(Ecq):
    """Options as ecq's; `step` is the distance of neighbouring levels, half of what a state admits."""

    name = "ecq-tcq"
    wire_id = 7
    default_step = 2.5
    least_lanes = 32
    energies = False
    tables = 2

    def _quantize(self, x: np.ndarray, step: np.float32) -> Quantized:
        inverse = np.float32(1) / step
        symbols, contexts = np.empty(len(x), np.uint8), np.empty(len(x), np.uint8)
        sums, rates = np.zeros((2, 3), np.int64), _FREE
        if len(x):  # what a symbol will cost is learned from a block
            rates = _rates(_core.count_symbols(*_core.tcq_quantize(x[:BLOCK], inverse, rates)[:2], 2))
        for start in range(0, len(x), BLOCK):
            part = slice(start, start + BLOCK)
            symbols[part], contexts[part], found = _core.tcq_quantize(x[part], inverse, rates)
            sums += found
        own = self.OWN.pack(*centroids(*sums))
        return Quantized(step, own, symbols, contexts, _core.count_symbols(symbols, contexts, 2))

    def _decode_block(self, stream: _core.RansDecoder, parsed: Parsed, start: int, block: np.ndarray) -> None:
        stream.next_levels(block)

    def _occurring(self, parsed: Parsed) -> np.ndarray:
        """A symbol stands for two levels, 2k and 2k + 1; blocks hold them zig-zag."""
        k = np.flatnonzero(parsed.frequencies[:, :ESCAPE].any(axis=0))
        k = np.where(k & 1, (k + 1) // 2, -(k // 2))
        levels = np.concatenate((2 * k, 2 * k + 1))
        occurring = np.zeros(256, bool)
        occurring[np.minimum(np.where(levels > 0, 2 * levels - 1, -2 * levels), ESCAPE)] = True
        return occurring


def _rates(counts: np.ndarray) -> np.ndarray:
    """(2, 256) float32: LAMBDA times the bits of each symbol, by how often it occurs; a quarter for never."""
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return (LAMBDA * (np.log2(total) - np.log2(np.maximum(counts, 0.25)))).astype(np.float32)
