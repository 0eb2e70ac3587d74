"""The coded coordinates of a delta at one step: what a quantizer hands to the entropy coder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .energy import Energies, group, groups_to_bytes
from .tables import ESCAPE, best_tables


@dataclass(frozen=True)
class Quantized:
    """n coordinates, quantized.

    `own`: the quantizer's own numbers in the payload. `symbols` (n,) uint8. `contexts` (n,) uint8: the row of `counts`
    for each symbol; None: row 0 for all. `counts` (K, 256): how often each symbol occurs in each context.

    With energies, `side` has them as bytes, and `groups` (32,) maps the context that follows from energies to a row of
    `counts`.
    """

    step: np.float32
    own: tuple[int, ...]
    symbols: np.ndarray
    contexts: np.ndarray | None
    counts: np.ndarray
    side: bytes = b""
    groups: np.ndarray | None = None

    @property
    def escapes(self) -> int:
        """How many coordinates are too large for a symbol."""
        return int(self.counts[:, ESCAPE].sum())

    @cached_property
    def tables(self) -> tuple[bytes, np.ndarray, float]:
        """The frequency tables as bytes, their frequencies (K, 256), and the bits of all symbols under them."""
        return best_tables(self.counts)

    @property
    def bits(self) -> float:
        """About the bits of symbols and tables."""
        return self.tables[2] + 8 * len(self.tables[0])

    def with_energies(self, energies: Energies, contexts: np.ndarray, counts: np.ndarray) -> Quantized:
        """The shorter of two: this without energies, or with `energies` and the `contexts` that follow from them.

        `counts` (32, 256) are those of the new contexts.
        """
        groups, bits = group(counts)
        side = groups_to_bytes(groups) + energies.to_bytes()
        if bits + 8 * len(side) >= self.bits:
            return self
        by_group = np.zeros((int(groups[-1]) + 1, 256), np.uint64)
        np.add.at(by_group, groups, counts)
        return replace(self, contexts=contexts, counts=by_group, side=side, groups=groups)
