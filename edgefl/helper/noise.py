"""Noise that a helper adds to what it opens: independent, or correlated over the rounds of a run. No I/O.

Correlated noise needs what the rounds before had (privacy/correlated.py). That is a `memory`, bytes that are made
durable with the answer, in one transaction: noise that has left is never drawn anew, and noise that was drawn and did
not leave is never used. It is of one run: the next one begins anew, which costs utility and no privacy.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..privacy.correlated import Banded, Memory, next_round
from ..privacy.noise import Source, discrete_gaussian
from ..protocol.terms import Terms

MARK_BYTES = 32  # of the run, before the memory


class Drawn(NamedTuple):
    """(L,) noise, and the memory that must be durable before it is used; None: there is none."""

    noise: NDArray[np.int64]
    memory: bytes | None = None


class Draw:
    """Draws from `source`; `memory` is what the rounds before have left."""

    def __init__(self, memory: bytes | None, source: Source) -> None:
        self._memory, self._source = memory, source

    def __call__(self, terms: Terms, purpose: bytes) -> Drawn:
        """Noise for this set of these terms; StoreError says why there is none."""
        noise = terms.noise
        if noise.kind != "banded":
            return Drawn(discrete_gaussian(noise.sigma, terms.length, self._source))
        plan = Banded(noise.sigma, noise.band, noise.separation, noise.rounds, terms.length)
        drawn, after = next_round(plan, self._before(terms), terms.round, purpose, self._source)
        return Drawn(drawn, _mark_of(terms) + after.to_bytes())

    def _before(self, terms: Terms) -> Memory:
        """What the rounds before have left, of this run."""
        kept = self._memory or b""
        return Memory.of_bytes(kept[MARK_BYTES:]) if kept[:MARK_BYTES] == _mark_of(terms) else Memory()


def _mark_of(terms: Terms) -> bytes:
    return hashlib.sha256(terms.run.encode()).digest()
