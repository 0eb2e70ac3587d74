"""The finest step whose payload fits a budget: by bisection on estimates from the histogram, then on real bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MIN_STEP, MAX_STEP = 2.0**-120, 2.0**60
HALVINGS = 17  # of a factor 2^30 between the finest and the coarsest step: within 0.02 %
COARSER = 1.001  # where the estimate was too low; then the square of that, and so on: 15 times at most


def clip_step(step: float) -> np.float32:
    """`step` as a float32 within what a payload may say."""
    return np.float32(min(max(step, MIN_STEP), MAX_STEP))


def search(
    peak: float, budget: int, size: Callable[[np.float32], float], write: Callable[[np.float32], bytes]
) -> bytes:
    """`write(step)` for about the smallest step with at most `budget` bytes; the coarsest one's if none has.

    `peak` is the largest |x|: a step of a thousand times that leaves nothing but zeros or noise. `size` estimates
    len(write(step)).
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
