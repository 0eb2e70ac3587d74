"""Correlated noise: what one round's noise adds to the sum of all rounds, the rounds after it take away again.

The model is a sum of rounds, so what hurts it is the noise in prefix sums. With C the square root of the matrix that
sums rounds up, round t gets w_t = z_t - c_1 w_(t-1) - ... - c_(p-1) w_(t-p+1), where z is white noise, the term of a
round that was abandoned is left out, and
c_0 = 1, c_k = c_(k-1) (1 - 1 / (2 k)) (Fichtenberger, Henzinger, Upadhyay 2023). Only the first p coefficients, the
*band*, are used: Kalinin, Lampert 2024, "Banded square root matrix factorization" (arXiv:2405.13763). All w together
are C⁻¹ z, so what is released of rounds x is a function of C x + z: one Gaussian mechanism over all rounds.

Design:
  a) A device takes part at most once in `separation` >= `band` rounds, so no two of its rounds share a row of C, and
     its sensitivity is the root of the sum of the squares of its columns: a bound without sampling assumptions. Rounds
     are counted by their numbers, abandoned ones too: without their rows and columns those that are left are no longer,
     and lie as far apart.
  b) `rounds` are fixed beforehand; a round beyond them is refused, since its epsilon was never accounted.
  c) z is float64 Gaussian noise, and w is rounded onto the grid of whole numbers. The sums are whole numbers already,
     so rounding comes after the mechanism and costs nothing. That float64 only approximates a Gaussian is not in
     epsilon: docs/privacy.md. Independent noise (noise.py) has no such gap.
  d) A place in the vector must mean the same number of the model, in the same units, in every round.
  e) w_t has at most twice the variance of z, whichever rounds were abandoned. Of the rounds that were not, up to t, let
     q be the last row of C⁻¹, so w_t = q z and Cᵀ q = e_t. Then q C q = q_t = 1, since C has a diagonal of ones. And
     q C q is q times the symmetric part of C, at least m |q|² with m = min over x of c_0 + c_1 cos x + ... +
     c_(p-1) cos (p-1) x: that part is cut out of a Toeplitz matrix with this symbol. So |q|² <= 1 / m, and m is 1/2 for
     a band of 2 and more for every other; a test computes it. No pattern of twelve rounds has more than 1.342, but no
     formula is known for that: with some rounds abandoned it is more than with none. It would save a third of a bit.

`Memory` is what has to outlive a process, for each run: band - 1 vectors of float64, and what the last round was for.
`next_round` gives the noise of a round and the memory after it; the caller makes that durable before the noise is used.
The same round for the same set again gives the same noise. Another set of that round, or an earlier round, is refused.
z comes from fresh randomness each time and is derived from nothing, so a memory that was restored from a backup can't
draw it again. A memory that is lost is begun again (`Memory()`): the noise cancels less until the band is full, and the
bound of (a) holds all the same, since the columns of C then only get shorter.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import StoreError, UsageError
from .noise import MOST, Source

MAX_BAND, MAX_ROUNDS = 256, 100_000
Floats = NDArray[np.float64]


def coefficients(band: int) -> Floats:
    """(band,) the first column of the square root of the matrix that sums rounds up."""
    k = np.arange(1, band)
    return np.concatenate(([1.0], np.cumprod(1 - 1 / (2.0 * k))))


@dataclass(frozen=True)
class Banded:
    """What is fixed before the first round. `sigma`: the standard deviation of z, in units of the grid."""

    sigma: float
    band: int
    separation: int
    rounds: int
    length: int

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= MOST:
            raise UsageError(f"sigma is {self.sigma!r}: give more than 0, and at most {MOST:g} units of the grid")
        check_band(self.band, self.separation, self.rounds)
        if self.length < 1:
            raise UsageError(f"length is {self.length}: give the length of a masked vector")


def check_band(band: int, separation: int, rounds: int) -> None:
    """UsageError unless the three go together."""
    if not 1 <= band <= MAX_BAND:
        raise UsageError(f"band is {band}: give 1 to {MAX_BAND} rounds")
    if separation < band:
        raise UsageError(
            f"separation is {separation} and band {band}: a device that comes back within the band breaks the bound; "
            f"give a separation of at least {band} rounds"
        )
    if not 1 <= rounds <= MAX_ROUNDS:
        raise UsageError(f"rounds is {rounds}: give the number of all rounds, 1 to {MAX_ROUNDS}, beforehand")


def sensitivity(band: int, times: int) -> float:
    """How far one device that takes part so often can move C x, if each of its vectors has norm 1. The columns of the
    last rounds, which are shorter, count as whole ones: what follows those rounds is accounted already."""
    return math.sqrt(times * float((coefficients(band) ** 2).sum()))


def prefix_error(band: int, rounds: int) -> float:
    """The root of the mean square of the noise in the prefix sums of `rounds` rounds, for z of sigma 1; a band of 1 is
    independent noise. Compare at equal epsilon: multiply by `sensitivity`."""
    c = coefficients(min(band, rounds))
    w = np.zeros(rounds)  # the first column of the inverse of C
    for t in range(rounds):
        reach = min(t, len(c) - 1)
        w[t] = float(t == 0) - float(c[1 : reach + 1] @ w[t - reach : t][::-1])
    squares = np.cumsum(np.cumsum(w) ** 2)  # of the rows of the sums of it
    return math.sqrt(float(squares.mean()))


@dataclass(frozen=True)
class Memory:
    """What the noise of the next round needs. `first` is the round that had noise first. `purpose` says what the newest
    of `past` was drawn for: the digest of its terms and its counted set.

    `past` has the noise of rounds, by number, newest first: those that the band reaches, and the newest always. Under
    another `plan` none of it counts: C begins again.
    """

    plan: Banded | None = None
    first: int = 0
    purpose: bytes = b""
    past: Mapping[int, Floats] = field(default_factory=dict, repr=False)  # (length,) each

    @property
    def round(self) -> int:
        """The round that had noise last; 0 before the first."""
        return next(iter(self.past), 0)

    def to_bytes(self) -> bytes:
        """What `of_bytes` reads; the caller seals it against flipped bits."""
        if self.plan is None:
            return b""
        head = _HEAD.pack(*astuple(self.plan), self.first, len(self.past), len(self.purpose))
        numbers = struct.pack(f"<{len(self.past)}Q", *self.past)
        return head + self.purpose + numbers + b"".join(w.astype("<f8").tobytes() for w in self.past.values())

    @staticmethod
    def of_bytes(data: bytes) -> Memory:
        """The memory that `to_bytes` has written; StoreError."""
        if not data:
            return Memory()
        try:
            *numbers_of_plan, first, count, purpose = _HEAD.unpack_from(data)
            plan = Banded(*numbers_of_plan)
            numbers = struct.unpack_from(f"<{count}Q", data, _HEAD.size + purpose)
        except (struct.error, UsageError):
            raise StoreError("the memory of the noise is damaged: begin a new epoch") from None
        body = _HEAD.size + purpose + 8 * count
        if len(data) != body + 8 * count * plan.length or not 1 <= count <= max(1, plan.band - 1):
            raise StoreError("the memory of the noise is damaged: begin a new epoch")
        past = np.frombuffer(data, "<f8", offset=body).reshape(count, plan.length).astype(float)
        return Memory(plan, first, data[_HEAD.size : _HEAD.size + purpose], dict(zip(numbers, past, strict=True)))


_HEAD = struct.Struct("<dHIIIQHB")  # the plan, first, vectors, length of the purpose


def next_round(
    plan: Banded, memory: Memory, round: int, purpose: bytes, source: Source = os.urandom
) -> tuple[NDArray[np.int64], Memory]:
    """(length,) noise of the round, and the memory that must be durable before that noise is used.

    StoreError, with the reason, where noise would be used twice or was never accounted for.
    """
    if memory.past and round == memory.round:
        if purpose != memory.purpose:
            raise StoreError(f"the noise of round {round} was drawn for another set: abandon the round")
        return _whole(memory.past[round]), memory
    if round < memory.round:
        raise StoreError(f"round {memory.round} had noise already, and {round} is older: it gets none")
    first, past = (memory.first, memory.past) if memory.plan == plan else (round, {})
    if round - first >= plan.rounds:
        raise StoreError(f"round {round}: only the {plan.rounds} from {first} on are accounted for; end the run")
    w = plan.sigma * _white(plan.length, source)
    c = coefficients(plan.band)
    for number, earlier in past.items():
        if round - number < plan.band:
            w -= c[round - number] * earlier
    kept = {number: noise for number, noise in past.items() if round - number < plan.band - 1}
    return _whole(w), Memory(plan, first, purpose, {round: w, **kept})


def _white(count: int, source: Source) -> Floats:
    """(count,) float64 Gaussian noise of sigma 1: Box and Muller's, of 53 and 64 random bits."""
    half = (count + 1) // 2
    bits = np.frombuffer(source(16 * half), "<u8").reshape(2, half)
    radius = np.sqrt(-2 * np.log(((bits[0] >> np.uint64(11)) + np.float64(1)) * 2.0**-53))
    angle = bits[1] * (2 * np.pi * 2.0**-64)
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count]


def _whole(w: Floats) -> NDArray[np.int64]:
    return np.rint(w).astype(np.int64)
