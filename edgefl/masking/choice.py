"""Which numbers of an update a masked round sends: a shared subset of them, or of their Hadamard transform.

Every device sends the same ones, since sums of masked vectors are sums by place. Of N numbers c are drawn: they are cut
into c runs of equal length, or nearly, and a number drawn from seed and run chooses one place in each. So a draw needs
no table, and is in order. Drawn from are, but for the last `whole` params, which are all sent as they are,

    "subset"    the params themselves
    "hadamard"  B blocks of n = 2^b params, each y = H (s x) / sqrt(n), with random signs s, the last block padded with
                zeros: large numbers are spread over their block (Suresh et al. 2017, arXiv:1611.00429)

Each number is sent with probability c / N. So `back` multiplies by N / c, and `back` of `take` is right in the mean.
What is sent whole is running statistics: variances that move N / c times as far as they should would become negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .._core import hadamard
from ..protocol.terms import Terms

if TYPE_CHECKING:
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float32]"
BLOCK = 4096  # params, or the next power of two from P on where there are fewer
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_SIGNS = 1 << 62  # added to a seed: another stream than that of the places


def mixed(seed: int, n: int) -> NDArray[np.uint64]:
    """(n,) numbers of SplitMix64 (Steele, Lea, Flood 2014): the same on every machine."""
    with np.errstate(over="ignore"):
        z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(seed)
        z = (z ^ z >> np.uint64(30)) * np.uint64(_FIRST)
        z = (z ^ z >> np.uint64(27)) * np.uint64(_SECOND)
        out: NDArray[np.uint64] = z ^ z >> np.uint64(31)
    return out


def block_of(params: int) -> int:
    """n, the length of a block."""
    return min(BLOCK, 1 << (params - 1).bit_length())


def drawn_from(terms: Terms) -> int:
    """N, how many numbers are drawn from."""
    moving = terms.params - terms.whole
    if terms.transform == "subset" or moving == 0:
        return moving
    block = block_of(moving)
    return -(-moving // block) * block


def draw(terms: Terms) -> NDArray[np.int64]:
    """(c,) places, in order."""
    total, count = drawn_from(terms), terms.coordinates - terms.whole
    if count == total:
        return np.arange(total)
    chance = mixed(terms.seed, count + 1) >> np.uint64(32)
    first = int(chance[count]) * count >> 32  # which runs are shorter, so that in time all numbers are sent as often
    edges = (np.arange(count + 1, dtype=np.int64) * total + first) // max(count, 1)
    within = chance[:count] * np.diff(edges).astype(np.uint64) >> np.uint64(32)
    places: NDArray[np.int64] = edges[:-1] + within.astype(np.int64)
    return places


def take(x: Floats, terms: Terms) -> Floats:
    """(d,) of x (P,); x itself where all of it is sent."""
    moving = terms.params - terms.whole
    if terms.transform == "subset" and terms.coordinates == terms.params:
        return x
    if terms.transform == "subset":
        return np.concatenate((x[:moving][draw(terms)], x[moving:]))
    rotated = np.zeros(drawn_from(terms), np.float32)
    np.multiply(x[:moving], _signs(terms, moving), out=rotated[:moving])
    hadamard(rotated, block_of(max(moving, 1)))
    return np.concatenate((rotated[draw(terms)], x[moving:]))


def back(y: Floats, terms: Terms) -> Floats:
    """(P,) of y (d,), N / c times; what was not sent is 0."""
    moving, count = terms.params - terms.whole, terms.coordinates - terms.whole
    out = np.zeros(max(drawn_from(terms), moving) + terms.whole, np.float32)
    drawn = out[: drawn_from(terms)]
    drawn[draw(terms)] = y[:count]
    drawn *= np.float32(drawn_from(terms) / max(count, 1))
    if terms.transform == "hadamard":
        hadamard(drawn, block_of(max(moving, 1)))
        drawn[:moving] *= _signs(terms, moving)
    out[moving : terms.params] = y[count:]
    return out[: terms.params]


def _signs(terms: Terms, count: int) -> Floats:
    """(count,) of 1 and -1."""
    signs: Floats = (mixed(terms.seed + _SIGNS, count) >> np.uint64(63)).astype(np.float32)
    signs *= 2
    signs -= 1
    return signs
