"""The finest step whose payload fits a budget: bisection on estimated sizes, then a few coarser steps on real bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MIN_STEP, MAX_STEP = 2.0**-120, 2.0**60
HALVINGS = 17  # of a range of 2^30: the step is found to 0.02 %
COARSER = 1.001  # factor on the step if the estimate was too low; squared at each further try, so 15 tries at most


def clip_step(step: float) -> np.float32:
    """`step` as a float32 from MIN_STEP to MAX_STEP, the steps that a payload may have."""
    clipped: np.float32 = np.float32(min(max(step, MIN_STEP), MAX_STEP))
    return clipped


def search(
    peak: float, budget: int, size: Callable[[np.float32], float], write: Callable[[np.float32], bytes]
) -> bytes:
    """`write(step)` for about the smallest step that gives at most `budget` bytes; for the coarsest step if none does.

    `size` estimates len(write(step)). `peak` is the largest |x|: steps beyond 1024 times that leave only zeros or
    noise, and are not tried.
    """
    low, high = np.log2(max(peak, MIN_STEP)) - 20, np.log2(max(peak, MIN_STEP)) + 10
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if size(clip_step(2.0**middle)) > budget:
            low = middle
        else:
            high = middle
    step, coarser = 2.0**high, COARSER
    payload = write(clip_step(step))
    while len(payload) > budget and step < 1024 * peak:
        step, coarser = step * coarser, coarser**2
        payload = write(clip_step(step))
    return payload
