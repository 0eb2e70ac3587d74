"""Places: which coordinates of a vector the symbols of a stream stand for, and the contexts that they have.

`Runs` are all coded coordinates, as the plan has them. `live` are those of a matrix's rows and columns that have a
class above 0: a stream of the form "live" has no other symbols, since all others are 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from .. import _core
from .energy import Energies
from .sections import Sections


class Places(Protocol):
    """`count` symbols. `symbols` below are those from number `start` on."""

    count: int

    def contexts(self, start: int, n: int) -> np.ndarray | None:
        """The table of each of n symbols, (n,) uint8; None: all use table 0."""

    def add(self, acc: np.ndarray, start: int, symbols: np.ndarray, table: np.ndarray) -> None:
        """acc (P,) int64 += table (256,) of the symbols; table[0] is 0."""

    def take(self, out: np.ndarray, start: int, symbols: np.ndarray, table: np.ndarray) -> None:
        """out (P,) float32, zeros before, = table (256,) of the symbols; table[0] is 0."""

    def coordinates(self, start: int, numbers: np.ndarray) -> np.ndarray:
        """Where in the vector symbols number `start` + `numbers` (k,), in ascending order, lie."""


class Runs:
    """All coded coordinates of `sections`; `contexts` as in Places."""

    def __init__(self, sections: Sections, contexts: Callable[[int, int], np.ndarray | None]) -> None:
        self.count, self.contexts, self._sections = sections.num_coded, contexts, sections

    def add(self, acc: np.ndarray, start: int, symbols: np.ndarray, table: np.ndarray) -> None:
        for inside, where in self._sections.pieces(start, start + len(symbols)):
            _core.add_symbols(acc[where], symbols[inside], table)

    def take(self, out: np.ndarray, start: int, symbols: np.ndarray, table: np.ndarray) -> None:
        for inside, where in self._sections.pieces(start, start + len(symbols)):
            _core.take_symbols(out[where], symbols[inside], table)

    def coordinates(self, start: int, numbers: np.ndarray) -> np.ndarray:
        found = [np.zeros(0, np.intp)]
        for inside, where in self._sections.pieces(start, start + int(numbers[-1]) + 1) if len(numbers) else ():
            first, last = numbers.searchsorted((inside.start, inside.stop))
            found.append(numbers[first:last] + (where.start - inside.start))
        return np.concatenate(found)


def live(sections: Sections, energies: Energies, groups: np.ndarray) -> _core.Live:
    """Coordinates in rows and columns of a class above 0; `groups` (32,): the table of each context."""
    classes = np.concatenate([c for pair in energies.classes for c in pair])
    return _core.Live(classes, sections.shapes, sections.starts, sections.num_params, groups)
