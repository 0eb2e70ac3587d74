"""The numbers of a masked round's terms, from what an operator knows. One place for the rules."""

from __future__ import annotations

import math
from typing import Any, Literal

from ..errors import UsageError
from ..privacy.noise import MOST as MOST_SIGMA
from ..protocol.profile_terms import IN_RANGE, ProfileTerms, digit_bits
from ..protocol.terms import MAX_BITS, MOST_COPIES, MOST_SCORE, SCORES, Votes

SPREAD = {"subset": 12.0, "hadamard": 5.0}  # the reach, in root mean squares of what is sent
MOST_NORM2 = 2**62  # that terms can say: of counts it is no bound that matters, since they have no noise
FINEST = 2**12  # integers of a share of 1
MARGIN = 1.1  # of the norm of a subset, above its share of the clip
VOTES = 0.02  # of the squared norm: what adaptive clipping adds to it, so noise is larger by half of that


def propose(
    params: int, clip: float, devices: int, *, whole: int = 0, weights: int = 1, share: float = 0.125, bits: int = 16,
    transform: Literal["subset", "hadamard"] = "subset", scores: bool = False, votes: bool = False,
    noise_bound: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Fields of Terms for at most so many devices; UsageError if m = `bits` are too few for them. `share` is that of
    the params that are sent, but for the last `whole`, which are all sent.

    The reach is the largest that can't wrap. The grid is such that the reach is SPREAD root mean squares of the numbers
    of a delta of full norm and weight: those beyond are cut, for good. `norm2` is what such a
    delta keeps with a probability of 0.39 in each draw at the least: Kairouz, Liu, Steinke 2021, Algorithm 1, for
    beta = exp(-1/2).

    Reach, norm2 and votes are the same whatever the clip: only the grid is in proportion to it.
    """
    clip, moving = float(clip), params - whole
    coordinates = whole + (max(1, round(moving * share)) if moving else 0)
    reach = (2 ** (bits - 1) - 1 - noise_bound) // devices
    if reach < weights or reach < 1:
        raise UsageError(f"{bits} bits are too few for {devices} devices of weights up to {weights}: take more bits")
    rms = weights * clip / math.sqrt(params)
    grid = max(SPREAD[transform] * rms / reach, weights * clip / 2**29)
    longer = MARGIN if coordinates < params else 1.0
    length = longer * rms * math.sqrt(coordinates) / grid
    rounded = length**2 + coordinates / 4 + length + math.sqrt(coordinates) / 2
    fixed = weights**2 + (SCORES * min(reach, MOST_SCORE) ** 2 if scores else 0)
    cast = _votes(rounded, reach) if votes else Votes()  # none leave terms as those without always were
    return {
        "params": params, "coordinates": coordinates, "whole": whole, "transform": transform, "bits": bits,
        "reach": reach, "grid": grid, "clip": clip, "norm2": math.ceil(rounded) + fixed + cast.norm2,
        "most": devices, "weights": weights, "scores": scores, **({"votes": cast} if votes else {}),
    }  # fmt: skip


def _votes(norm2: float, reach: int) -> Votes:
    """Votes as large as they may be, and as many as come to VOTES of this squared norm, but one at least."""
    size = max(1, min(reach, math.isqrt(int(VOTES * norm2))))
    return Votes(max(1, min(MOST_COPIES, round(VOTES * norm2 / size**2))), size)


def propose_counts(columns: int, labels: int, devices: int) -> dict[str, Any]:
    """Fields of Terms for a profile of so many columns and labels, by at most so many devices."""
    reach = (1 << digit_bits((2 ** (MAX_BITS - 1) - 1) // devices)) - 1
    profile = ProfileTerms.fitting(columns, labels, reach)
    length = profile.length(reach)
    return {
        "params": length, "coordinates": length, "bits": MAX_BITS, "reach": reach, "grid": 1.0, "clip": 1.0,
        "norm2": min(MOST_NORM2, length * reach**2 + 1), "most": devices, "profile": profile,
    }  # fmt: skip


def propose_shares(
    columns: int, labels: int, ranges: tuple[tuple[float, float], ...], devices: int, *, sigma: float
) -> dict[str, Any]:
    """Fields of Terms, but for `bits`, for a profile with ranges and noise of `sigma` over the longest vector."""
    profile = ProfileTerms(columns, labels, IN_RANGE, ranges)
    clip = math.sqrt(profile.most2)
    reach = min(FINEST, 2 ** (MAX_BITS - 2) // devices, int(MOST_SIGMA / 2 / max(sigma * clip, 1.0)))
    if reach < 1:
        raise UsageError(f"privacy.sigma is {sigma:g}, too much for a profile of {columns} columns: lower it")
    length, norm = profile.length(reach), clip * reach
    rounded = norm**2 + length / 4 + norm + math.sqrt(length) / 2
    return {
        "params": length, "coordinates": length, "reach": reach, "grid": 1 / reach, "clip": clip,
        "norm2": math.ceil(rounded) + 1, "most": devices, "profile": profile,
    }  # fmt: skip
