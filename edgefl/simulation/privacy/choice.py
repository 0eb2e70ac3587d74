"""Clip and share of rounds with noise where nobody has chosen them, and whether the noise leaves anything to learn.

Noise costs loss by its square, as the loss is curved, and a model gains in proportion to how far its rounds can move
it. So what counts is the square of the noise in the model over that distance, both as L2 norms in the units of params:

    strain = (noise in the model)^2 / (rounds clip sqrt(P))

sqrt(P) makes it one scale for nets of 25 thousand to 1.7 million params, and the limits below are read off measured
runs: benchmarks/README.md has them, and a test compares. It says nothing of a clip that hardly any update reaches.
Smaller clips strain less, but rounds x clip, the distance, must be long enough to learn anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from math import sqrt

from ...errors import UsageError
from .terms import Goal, Proposal, propose

HOPELESS = 1 / 3  # above it more than 13 points of accuracy were lost in each measured run, and below it less
FITTING = 0.15  # near which it was 1 to 4 points
LITTLE = 0.05  # up to which it was 1.5 at most
LONGEST = 1.0  # about the median norm of an update without noise: a longer clip adds noise, and shortens nothing
DISTANCE = 4.0  # the least: with 4 to 6, training without noise lost 2 to 7 points of accuracy to its clip
SMALL = 2**14  # params of which all are sent: nothing is saved that matters
SHARE = 1 / 8
WORTHWHILE = 0.9  # of the strain: what lowers it by less is not worth telling


def strain(found: Proposal) -> float:
    """How much the noise stands in the way of learning."""
    goal = found.goal
    return found.in_model**2 * goal.clip / (goal.rounds * sqrt(goal.params))


def suggest(goal: Goal, clip: float | None, share: float | None) -> Proposal:
    """The proposal for this clip and share; where one is None, for what suits devices and model; UsageError."""
    found = propose(replace(goal, clip=LONGEST if clip is None else clip, share=1.0 if share is None else share))
    if clip is None:
        suits = max(FITTING * LONGEST / strain(found), DISTANCE / goal.rounds)
        found = propose(replace(found.goal, clip=float(f"{min(LONGEST, suits):.2g}")))
    if share is None and goal.params >= SMALL and goal.noise != "banded":
        part = propose(replace(found.goal, share=SHARE))
        if strain(part) <= LITTLE:
            return part
    return found


def helps(found: Proposal) -> dict[str, float]:
    """What lowers the strain, and to how much, the least first. Rounds and clip change together: the distance stays."""
    goal, told, enough = found.goal, dict[str, float](), WORTHWHILE * strain(found)
    for what, other in _others(goal):
        with suppress(UsageError):  # a number that can't be, such as a delta above one over the devices
            if (less := strain(propose(other))) <= enough:
                told[what] = less
    return dict(sorted(told.items(), key=lambda pair: pair[1]))


def _others(goal: Goal) -> Iterator[tuple[str, Goal]]:
    yield "twice the devices", replace(goal, devices=2 * goal.devices, cohort=2 * goal.cohort)
    yield "twice the epsilon", replace(goal, epsilon=2 * goal.epsilon)
    yield "a model of half the params", replace(goal, params=max(1, goal.params // 2))
    yield "twice the rounds, each of half the clip", replace(goal, rounds=2 * goal.rounds, clip=goal.clip / 2)
    if goal.share < 1:
        yield "all coordinates", replace(goal, share=1.0)
