"""What passes between a quantizer and the entropy coder, on both sides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..core.accumulator import SCALE
from .energy import Energies, group, groups_to_bytes
from .tables import ESCAPE, best_tables


@dataclass(frozen=True)
class Parsed:
    """A payload taken apart; `own` are the quantizer's numbers, `values` the escapes'. `groups` (32,) name the tables
    of the contexts that `energies` make."""

    step: np.float32
    own: tuple[float, ...]
    kept: np.ndarray
    energies: Energies | None
    groups: np.ndarray | None
    frequencies: np.ndarray
    lanes: int
    stream: memoryview
    values: np.ndarray


@dataclass(frozen=True)
class Quantized:
    """The coded part of a delta at one step: `symbols` (n,), the `contexts` (n,) that name their tables (None: all the
    first one), and how often each symbol occurs in each context, `counts` (K, 256).

    With energies, `side` is their bytes, and `groups` (32,) name the contexts' tables.
    """

    step: np.float32
    own: bytes
    symbols: np.ndarray
    contexts: np.ndarray | None
    counts: np.ndarray
    side: bytes = b""
    groups: np.ndarray | None = None

    @property
    def escapes(self) -> int:
        return int(self.counts[:, ESCAPE].sum())

    @cached_property
    def tables(self) -> tuple[bytes, np.ndarray, float]:
        """Their bytes, their frequencies (K, 256), and the bits that all symbols take."""
        return best_tables(self.counts)

    @property
    def bits(self) -> float:
        """About those of symbols and tables."""
        return self.tables[2] + 8 * len(self.tables[0])

    def with_energies(self, energies: Energies, contexts: np.ndarray, counts: np.ndarray) -> Quantized:
        """This, or with the `contexts` that `energies` make, `counts` (32, 256), where that takes less."""
        groups, bits = group(counts)
        side = groups_to_bytes(groups) + energies.to_bytes()
        if bits + 8 * len(side) >= self.bits:
            return self
        by_group = np.zeros((int(groups[-1]) + 1, 256), np.uint64)
        np.add.at(by_group, groups, counts)
        return replace(self, contexts=contexts, counts=by_group, side=side, groups=groups)


@dataclass(frozen=True)
class Piece:
    """Decoded `symbols` of coded coordinates that lie at `where` in the vector, one run; `escaped` are the vector's
    coordinates of escapes among them, `values` theirs. Valid until the next piece."""

    symbols: np.ndarray
    where: slice
    escaped: np.ndarray
    values: np.ndarray


def to_fixed(values: np.ndarray) -> np.ndarray:
    """float32 to the accumulator's int64."""
    return np.rint(values.astype(np.float64) * SCALE).astype(np.int64)
