"""Rule: what a robust strategy makes of a round's updates, in two steps. One rule a file.

    rows = weights(facts) · updates        (r, k) (k, P): sums of updates, whose weights depend on their inner products
    delta = columns(rows)                  (r, P) -> (P,): each coordinate from its own column

Krum, for instance, is one row of weights, with a 1 for the update that it chooses; the median has none. Steps before a
rule (mix/) are weights too. So a round reads the spill twice, for the (k, k) inner products and for the result, and
holds one chunk of coordinates, whatever is put together (robust.py).
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .base import Part


@dataclass(frozen=True)
class Facts:
    """What weights may depend on. `gram` (k, k) float64 has the inner products of the rows, and f of the rows may be
    those of attackers. `devices` are the rows' names; () if rows are no longer those of single devices."""

    gram: np.ndarray
    f: int
    devices: tuple[str, ...] = ()

    @property
    def norms(self) -> np.ndarray:
        """(k,) float64: the length of each row."""
        norms: np.ndarray = np.sqrt(np.diagonal(self.gram))
        return norms

    @property
    def squares(self) -> np.ndarray:
        """(k, k) float64: squared distances, exactly 0 of a row from itself."""
        own = np.diagonal(self.gram)
        squares: np.ndarray = np.maximum(own[:, None] + own[None] - 2 * self.gram, 0.0)
        np.fill_diagonal(squares, 0.0)
        return squares


class Weights(Part, ABC):
    """What steps and rules share. Ties are decided by the order of the devices' names."""

    def most(self, rows: int) -> int:
        """The largest f that works for so many rows."""
        return max(0, (rows - 1) // 2)

    def out_of(self, rows: int) -> int:
        """How many rows it makes of so many."""
        return rows

    def weights(self, facts: Facts) -> np.ndarray | None:
        """(r, k) float64; None: rows stay as they are."""
        return None


class Rule(Weights):
    """`by_column`: a coordinate that most devices send as 0 ends as 0, so codecs must write most coordinates.
    `needs_gram`: whether weights(facts) looks at inner products; `needs_names`: whether it looks at the devices' names.
    `anchor`: one more vector, the last row of `gram`."""

    by_column = False
    needs_gram = True
    needs_names = False
    anchor: np.ndarray | None = None

    def most_rows(self, assumed: Callable[[int], int]) -> int | None:
        """The most updates that the rule copes with, `assumed(k)` of which may be attackers'; None: any number."""
        return None

    def columns(self, rows: np.ndarray, f: int) -> np.ndarray:
        """(c,) float32 of `rows`, (r, c) float32, which may be changed in place."""
        one: np.ndarray = rows[0]
        return one

    def keep(self, delta: np.ndarray) -> None:
        """The round's delta, (P,) float32, is `delta`."""


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a b, (m, n) float64 of (m, k) and (k, n). A BLAS sums in an order that depends on the machine, this in one."""
    out = np.zeros((len(a), b.shape[1]))
    for column, row in zip(a.T, b, strict=True):
        out += column[:, None] * row
    return out


def inner(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """(m,) float64: the inner product of `vector` (k,) with each of `rows` (m, k), or with the one row (k,); as
    `product`."""
    sums: np.ndarray = (rows * vector).sum(axis=-1)
    return sums


def chosen(rows: np.ndarray, k: int) -> np.ndarray:
    """(1, k) float64: weights of the mean of the updates whose numbers are `rows`."""
    weights = np.zeros((1, k))
    weights[0, rows] = 1 / len(rows)
    return weights


def smallest(values: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` smallest values; of equal ones the first."""
    return np.sort(np.argsort(values, kind="stable")[:count])
