"""From a delta to the integers that a device masks, and from their sum to the mean delta.

A device clips its delta and rounds weight x delta / grid at random, up or down, so that the mean is right. Rounding
makes a vector longer. So it tests the exact squared norm of the integers against the terms' `norm2`, and draws again,
up to eight times; then it rounds toward zero, which makes no vector longer (conditional randomised rounding: Kairouz,
Liu, Steinke 2021, arXiv:2102.06387, Algorithm 1). What is masked keeps the bound always, weight and scores included.

    mean delta = back(sum of q) grid / sum of weights

is right over the draws too (choice.py). There is no error feedback: a device that is drawn now and then would send most
of its residual when it is long out of date. And a model of many params answers to a step in an eighth of them, eight
times as long, nearly as to the whole step: docs/masked.md has curves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from msgspec import Struct

from .._core import ring_measure, ring_round, rms
from ..errors import CodecError, ProtocolError
from ..protocol.terms import Terms
from .choice import Floats, back, take
from .masks import Randomness

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS = 8
MOST_LOSS = 16.0  # of a held-out loss; a larger one counts as this


class Scored(NamedTuple):
    """The received model on what a device holds out."""

    num_eval: int
    loss: float
    accuracy: float | None


class Quantized(NamedTuple):
    """`q` (L,) int32 is what is masked, and `kept` the length that clipping left of the delta, in parts of its own."""

    q: NDArray[np.int32]
    kept: float


class Mean(Struct, frozen=True):
    """What an opened sum says: the mean delta (P,) of `count` devices of this summed `weight`; `held_out` is their loss
    and accuracy, None where no device told of any. `within`: the share of them whose delta the clip has not shortened,
    as far as the noise lets it be seen; None where none told."""

    delta: Floats
    count: int
    weight: int
    held_out: tuple[float, float] | None = None
    within: float | None = None


def quantize(
    delta: Floats, weight: int, terms: Terms, randomness: Randomness, scored: Scored | None = None
) -> Quantized:
    """The integers of delta (P,); CodecError if it is not finite or has another length. Rounding takes 8 bytes of
    `randomness` for each draw. They need not be secret: what an update tells of them is masked."""
    if delta.shape != (terms.params,) or not 1 <= weight <= terms.weights:
        raise CodecError(f"delta of {len(delta)} numbers and weight {weight}: not of these terms", "length")
    norm = rms(delta) * math.sqrt(terms.params)
    if not math.isfinite(norm):
        raise CodecError("delta that is not finite", "finite")
    q = np.ones(terms.length, np.int32)
    q[terms.at_weight], fixed = weight, weight**2
    if terms.scores:
        q[terms.at_scores], told = ring_round(_score(scored, terms), 1.0, terms.most_score, _seed(randomness))
        fixed += told
    q[terms.at_votes] = terms.votes.size if norm <= terms.clip else -terms.votes.size
    fixed += terms.votes.norm2
    values, kept = take(delta, terms), min(1.0, terms.clip / max(norm, 1e-30))
    kept *= _shrink(values, kept * weight / terms.grid, terms.norm2 - fixed)
    q[: terms.coordinates] = _bounded(values, kept * weight / terms.grid, terms.norm2 - fixed, terms.reach, randomness)
    return Quantized(q, kept)


def mean(total: NDArray[np.int64], terms: Terms) -> Mean:
    """What the opened, centred sum (L,) says; ProtocolError if no set of honest devices gives it."""
    checks = total[terms.at_checks]
    count, weight = int(checks[0]), int(total[terms.at_weight])
    if (checks != count).any() or not 1 <= count <= terms.most:
        raise ProtocolError("masked vectors whose checks do not add up to a count: refused", "sum")
    if terms.weights == 1 or terms.noise.kind != "none":
        weight = count
    if not count <= weight <= count * terms.weights:
        raise ProtocolError(f"masked vectors of {count} devices whose weights add up to {weight}: refused", "sum")
    values, votes = total[: terms.coordinates], total[terms.at_votes]
    for sums, most in ((values, terms.reach), (votes, terms.votes.size)):
        if int(np.abs(sums).max(initial=0)) > count * most + terms.noise_bound:
            raise ProtocolError(f"masked vectors whose sum {count} devices can't reach: refused", "sum")
    delta = back((values * (terms.grid / weight)).astype(np.float32), terms)
    held_out = _held_out(total[terms.at_scores]) if terms.scores else None
    return Mean(delta, count, weight, held_out, _within(votes, terms, count))


# ---- scores


def _score(scored: Scored | None, terms: Terms) -> Floats:
    """(3,) in [0, most_score]: the share of a full weight, and that times loss and accuracy."""
    if scored is None or scored.num_eval == 0 or not math.isfinite(scored.loss):
        return np.zeros(3, np.float32)
    share = min(1.0, scored.num_eval / (terms.examples * terms.weights))
    loss = min(max(scored.loss, 0.0), MOST_LOSS) / MOST_LOSS
    return np.array([each * share * terms.most_score for each in (1.0, loss, scored.accuracy or 0.0)], np.float32)


def _held_out(sums: NDArray[np.int64]) -> tuple[float, float] | None:
    weight, loss, accuracy = (float(each) for each in sums)
    if weight <= 0:
        return None
    return max(0.0, loss / weight) * MOST_LOSS, min(1.0, max(0.0, accuracy / weight))


def _within(votes: NDArray[np.int64], terms: Terms, count: int) -> float | None:
    """The share of votes of yes. Noise may carry it past 0 or 1, and a hostile device's votes as well."""
    if not len(votes):
        return None
    return min(1.0, max(0.0, 0.5 + int(votes.sum()) / (2 * terms.votes.size * len(votes) * count)))


# ---- rounding


def _shrink(values: Floats, scale: float, room: int) -> float:
    """A factor, 1 as a rule, after which the integers of values x scale fit into the squared norm `room`, likely by
    rounding at random, and surely by rounding toward zero."""
    squares, spread = ring_measure(values, scale)
    length = math.sqrt(squares)
    expected = squares + spread + length + math.sqrt(len(values)) / 2
    if expected <= room or length == 0:
        return 1.0
    left = max(room - (expected - squares), 0.0)  # if nothing, all is rounded toward zero
    goal = math.sqrt(left) if left > 0 else math.sqrt(max(room, 0)) * (1 - 1e-6)
    return min(1.0, goal / length)


def _bounded(values: Floats, scale: float, room: int, reach: int, randomness: Randomness) -> NDArray[np.int32]:
    """The integers, (d,): their squares add up to at most `room`."""
    for draw in range(DRAWS + 1):
        q, squares = ring_round(values, scale, reach, _seed(randomness) if draw < DRAWS else None)
        if squares <= room:
            return q
    raise CodecError("a delta that does not fit into its squared norm", "codec")


def _seed(randomness: Randomness) -> int:
    return int.from_bytes(randomness(8), "little")
