"""The coded coordinates of a delta at one step: what a quantizer hands to the entropy coder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .. import _core
from .energy import CONTEXTS, Energies, group, groups_to_bytes
from .tables import ESCAPE, best_tables


@dataclass(frozen=True)
class Quantized:
    """n coordinates, quantized.

    `own`: the quantizer's own numbers in the payload. `symbols` (n,) uint8. `contexts` (n,) uint8: the row of `counts`
    for each symbol; None: row 0 for all. `counts` (K, 256): how often each symbol occurs in each context.

    With energies, `side` has them as bytes, and how they choose a row of `counts`. `whole` (n,): where
    `symbols` (m,) are those of live rows and columns alone, those of all coordinates.
    """

    step: np.float32
    own: tuple[int, ...]
    symbols: np.ndarray
    contexts: np.ndarray | None
    counts: np.ndarray
    side: bytes = b""
    whole: np.ndarray | None = None

    @property
    def live(self) -> bool:
        """Whether `symbols` are those of live rows and columns alone."""
        return self.whole is not None

    @property
    def escaped(self) -> np.ndarray:
        """(n,) bool: the coordinates that are too large for a symbol."""
        found: np.ndarray = (self.symbols if self.whole is None else self.whole) == ESCAPE
        return found

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

    def with_energies(
        self, energies: Energies, symbols: np.ndarray, contexts: np.ndarray, live: bool = False
    ) -> Quantized:
        """The shorter of two: this without energies, or with `energies` and the `symbols` (m,) and `contexts` (m,)
        that follow from them. The contexts become numbers of tables in place."""
        counts = _core.count_symbols(symbols, contexts, CONTEXTS)
        groups, bits = group(counts)
        side = groups_to_bytes(groups) + energies.to_bytes()
        if bits + 8 * len(side) >= self.bits:
            return self
        by_group = np.zeros((int(groups[-1]) + 1, 256), np.uint64)
        np.add.at(by_group, groups, counts)
        _core.look_up_contexts(contexts, groups)
        return replace(
            self, symbols=symbols, contexts=contexts, counts=by_group, side=side, whole=self.symbols if live else None
        )  # fmt: skip
