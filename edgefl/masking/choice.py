"""Which numbers of an update a masked round sends: a shared subset of them, or of their Hadamard transform.

Every device sends the same ones, since sums of masked vectors are sums by place. The numbers are cut into d runs of
equal length, or nearly; a number drawn from seed and run chooses one place in each. So a draw needs no table, and is in
order.

    "subset"    of the P params themselves
    "hadamard"  of B blocks of n = 2^b params, each y = H (s x) / sqrt(n), with random signs s, the last block padded
                with zeros: large numbers are spread over their block (Suresh et al. 2017, arXiv:1611.00429)

`back` of `take` is never longer than the vector, and what it leaves out is not either. Where no block is padded, it is
the nearest vector that such numbers can tell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..protocol.terms import Terms

Floats = NDArray[np.float32]
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
    if terms.transform == "subset":
        return terms.params
    block = block_of(terms.params)
    return -(-terms.params // block) * block


def draw(terms: Terms) -> NDArray[np.int64]:
    """(d,) places, in order."""
    total, d = drawn_from(terms), terms.coordinates
    chance = mixed(terms.seed, d + 1) >> np.uint64(32)
    first = int(chance[d]) * d >> 32  # which runs are the shorter ones, so that in time all numbers are sent as often
    edges = (np.arange(d + 1, dtype=np.int64) * total + first) // d
    within = chance[:d] * np.diff(edges).astype(np.uint64) >> np.uint64(32)
    places: NDArray[np.int64] = edges[:-1] + within.astype(np.int64)
    return places


def take(x: Floats, terms: Terms) -> Floats:
    """(d,) of x (P,)."""
    if terms.transform == "subset":
        return x[draw(terms)]
    rotated = np.zeros(drawn_from(terms), np.float32)
    np.multiply(x, _signs(terms), out=rotated[: terms.params])
    _hadamard(rotated, block_of(terms.params))
    return rotated[draw(terms)]


def back(y: Floats, terms: Terms) -> Floats:
    """(P,) of y (d,): what was not sent is 0."""
    out = np.zeros(drawn_from(terms), np.float32)
    out[draw(terms)] = y
    if terms.transform == "hadamard":
        _hadamard(out, block_of(terms.params))
        out = out[: terms.params]
        out *= _signs(terms)
    return out


def _signs(terms: Terms) -> Floats:
    """(P,) of 1 and -1."""
    signs: Floats = (mixed(terms.seed + _SIGNS, terms.params) >> np.uint64(63)).astype(np.float32)
    signs *= 2
    signs -= 1
    return signs


def _hadamard(x: Floats, block: int) -> None:
    """x (B n,) = H x / sqrt(n) in each block of n = `block` numbers, by float32 operations in one order."""
    half = 1
    while half < block:
        pairs = x.reshape(-1, 2, half)
        low = pairs[:, 0] + pairs[:, 1]
        pairs[:, 1] = pairs[:, 0] - pairs[:, 1]
        pairs[:, 0] = low
        half *= 2
    x *= np.float32(block**-0.5)
