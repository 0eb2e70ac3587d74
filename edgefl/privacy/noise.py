"""Discrete Gaussian noise, exactly: whole numbers x with a chance proportional to exp(-x² / (2 sigma²)).

Canonne, Kamath, Steinke 2020, "The Discrete Gaussian for Differential Privacy" (arXiv:2004.00010), algorithms 1 to 3,
for many coordinates at a time. Every decision compares whole numbers, so no rounding of floats is in the distribution.
The one-at-a-time version, in fractions, is the reference in tests/support/noise_reference.py.

Design:
  a) Sigma is p / 2^e with p of 21 bits or more, rounded up: at most 1e-6 too much noise, never too little.
  b) |y| comes from a geometric distribution of scale t = floor(sigma) + 1, and is accepted with chance
     exp(-(|y| - sigma²/t)² / (2 sigma²)). With q = 2^e, T = t q p and | |y| t q² - p² | = i T + j, that is
     exp(-1/2)^(i²) · exp(-j/T)^i · exp(-j²/(2 T²)), and no number in it needs more than 64 bits.
  c) Randomness is injected: a function that returns so many random bytes. The same bytes give the same noise.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

Source = Callable[[int], bytes]  # so many random bytes
Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]

BITS = 21  # of p at least
LEAST, MOST = 2.0**-5, 2.0**24  # sigma: T stays below 2^49, and i T + j below 2^63
CHUNK = 1 << 16  # coordinates at a time: 20 MB at work


def rational(sigma: float) -> tuple[int, int]:
    """(p, e): the sigma that is used is p / 2^e, at least `sigma` and at most 1 + 2^-20 times it."""
    if not LEAST <= sigma <= MOST:
        raise UsageError(f"sigma is {sigma!r}: give {LEAST:g} to {MOST:g} units of the grid")
    shift = max(0, BITS - math.frexp(sigma)[1])
    return math.ceil(math.ldexp(sigma, shift)), shift


def discrete_gaussian(sigma: float, count: int, source: Source = os.urandom) -> NDArray[np.int64]:
    """(count,) independent draws. `source` gives random bytes; leave it out anywhere but in tests and simulations."""
    sampler = _Sampler(*rational(sigma), source)
    out = np.empty(count, np.int64)
    for start in range(0, count, CHUNK):
        part = out[start : start + CHUNK]
        part[:] = sampler.draw(len(part))
    return out


class _Sampler:
    """Draws for sigma = p / 2^shift."""

    def __init__(self, p: int, shift: int, source: Source) -> None:
        self._chance = _Chance(source)
        self._t = (p >> shift) + 1  # the scale of the proposals
        self._p2, self._tq2 = p * p, self._t << 2 * shift
        self._unit = (self._t * p) << shift

    def draw(self, count: int) -> NDArray[np.int64]:
        out = np.empty(count, np.int64)
        pending = np.arange(count)
        while pending.size:
            taken, values = self._propose(pending.size)
            out[pending[taken]] = values
            pending = pending[~taken]
        return out

    def _propose(self, count: int) -> tuple[Flags, NDArray[np.int64]]:
        """Which of `count` proposals are accepted, and their values."""
        chance, t = self._chance, self._t
        low = chance.below(t, count)
        taken = chance.exp(low, t)
        low = low[taken]
        size = low + np.uint64(t) * self._ones(low.size)
        negative = chance.below(2, size.size) == 1
        kept = ~(negative & (size == 0))  # or 0 would come twice as often
        place = np.flatnonzero(taken)
        accepted = np.zeros(size.size, bool)
        accepted[kept] = self._accept(size[kept])
        taken[place[~accepted]] = False
        values = size[accepted].astype(np.int64)
        return taken, np.where(negative[accepted], -values, values)

    def _ones(self, count: int) -> Words:
        """How often exp(-1) comes true in a row, for each."""
        out = np.zeros(count, np.uint64)
        live = np.arange(count)
        while live.size:
            live = live[self._chance.exp(np.ones(live.size, np.uint64), 1)]
            out[live] += np.uint64(1)
        return out

    def _accept(self, size: Words) -> Flags:
        """Each with chance exp(-(size - sigma²/t)² / (2 sigma²))."""
        chance, unit = self._chance, self._unit
        apart = size * np.uint64(self._tq2)
        apart = np.where(apart > self._p2, apart - np.uint64(self._p2), np.uint64(self._p2) - apart)
        i, j = np.divmod(apart, np.uint64(unit))
        live = np.flatnonzero(chance.exp_half_square(j, unit))
        live = live[chance.all_of(i[live] * i[live], lambda at: chance.exp(np.ones(at.size, np.uint64), 2))]
        live = live[chance.all_of(i[live], lambda at: chance.exp(j[live[at]], unit))]
        out = np.zeros(size.size, bool)
        out[live] = True
        return out


class _Chance:
    """Whole numbers, and events of a chance that is known exactly, from random bytes."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def below(self, limit: int, count: int) -> Words:
        """(count,) numbers from 0 to limit - 1, each as likely. `limit` is at most 2^63."""
        out = self._words(count)
        beyond = 2**64 // limit * limit  # words from here on would make small numbers more likely
        while beyond < 2**64 and (again := np.flatnonzero(out >= np.uint64(beyond))).size:
            out[again] = self._words(again.size)
        low: Words = out % np.uint64(limit)
        return low

    def _words(self, count: int) -> Words:
        return np.frombuffer(self._source(8 * count), "<u8").astype(np.uint64)

    def exp(self, a: Words, b: int) -> Flags:
        """Each with chance exp(-a / b); a (n,) is at most b. Algorithm 1: the first k at which a / (b k) fails is
        odd."""
        return self._first_odd(a.size, lambda live, k: self.below(b * k, live.size) < a[live])

    def exp_half_square(self, a: Words, b: int) -> Flags:
        """Each with chance exp(-a² / (2 b²)): a² / (2 b² k) as two events, or it would need more than 64 bits."""

        def both(live: NDArray[np.intp], k: int) -> Flags:
            hit = self.below(b, live.size) < a[live]
            hit[hit] = self.below(2 * b * k, int(hit.sum())) < a[live[hit]]
            return hit

        return self._first_odd(a.size, both)

    @staticmethod
    def _first_odd(count: int, event: Callable[[NDArray[np.intp], int], Flags]) -> Flags:
        out = np.zeros(count, bool)
        live, k = np.arange(count), 1
        while live.size:
            hit = event(live, k)
            out[live[~hit]] = k % 2 == 1
            live, k = live[hit], k + 1
        return out

    @staticmethod
    def all_of(times: Words, event: Callable[[NDArray[np.intp]], Flags]) -> Flags:
        """Whether the event comes true `times` (n,) in a row; `event` is asked for the places that go on."""
        out: Flags = times == 0
        left = times.copy()
        live = np.flatnonzero(~out)
        while live.size:
            live = live[event(live)]
            left[live] -= np.uint64(1)
            done = left[live] == 0
            out[live[done]] = True
            live = live[~done]
        return out
