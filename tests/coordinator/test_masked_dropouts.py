"""What a masked round opens is the exact sum of the counted devices, whichever drop out, and whatever is restarted.

A sample runs with every test; EDGEFL_EXHAUSTIVE=1 plays all patterns: `make soak-masked`.
"""

from __future__ import annotations

import itertools
import os
import random

import pytest
from dropouts import RESTARTS, STAGES, check
from masked_rounds import DEVICES

EXHAUSTIVE = bool(os.environ.get("EDGEFL_EXHAUSTIVE"))


def some(patterns: list, count: int, seed: object) -> list:
    """All patterns, or so many of them that are drawn."""
    return patterns if EXHAUSTIVE else random.Random(str(seed)).sample(patterns, count)


@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("stage", STAGES[:-1])
def test_i35_the_opened_sum_is_exact_whichever_of_twelve_devices_drop_out_at_a_stage(stage, restart):
    """All 4096 sets of twelve devices, for each stage and each restart."""
    sets = list(itertools.product((False, True), repeat=len(DEVICES)))
    for number, drops in enumerate(some(sets, 2, (stage, restart))):
        stages = {device: stage if out else "never" for device, out in zip(DEVICES, drops, strict=True)}
        check(stages, restart, random.Random(f"{stage} {restart} {number}"))


@pytest.mark.parametrize("restart", RESTARTS)
def test_i35_the_opened_sum_is_exact_however_many_of_twelve_devices_drop_out_at_each_stage(restart):
    """All 1820 ways to share twelve devices out among the stages, for each restart."""
    shared = list(itertools.combinations_with_replacement(STAGES, len(DEVICES)))
    for number, stages in enumerate(some(shared, 6, restart)):
        rng = random.Random(f"{restart} {number}")
        check(dict(zip(rng.sample(DEVICES, len(DEVICES)), stages, strict=True)), restart, rng)


def test_i35_the_opened_sum_is_exact_for_every_pattern_of_devices_and_stages():
    """All 3125 patterns of five devices, each with a restart that is drawn."""
    rng = random.Random(0)
    for stages in some(list(itertools.product(STAGES, repeat=5)), 60, "five"):
        check(dict(zip(DEVICES, stages, strict=False)), rng.choice(RESTARTS), rng)
