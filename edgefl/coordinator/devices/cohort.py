"""Cohort: which devices a round asks, and how many. No I/O. Part of RoundCoordinator.

    list   the aggregator draws from the devices that are present, and the round names those that it asks
    draw   each device draws for itself from the round's seed: any number of devices, no list, and the aggregator, which
           can make the same draw, accepts no other device's update

A list that would make the round's message longer than `LIST_BYTES` becomes a draw, in which nothing is selected.

Sizes count devices that are worth waiting for (standing.py). The others are asked on top, each with the probability
that those have: a round reaches its goal without them, and they keep their chance to report.

How many devices will report can't be known beforehand: over-selection asks more devices than the goal, and closes at
the goal (Bonawitz et al. 2019, arXiv:1902.01046, section 4.3: 30 % more).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from ...errors import UsageError
from ...protocol.messages import RETAINED_LIMIT
from ...protocol.round import Draw, is_asked
from ...settings import RoundSettings
from .. import selection

LIST_BYTES = RETAINED_LIMIT - 6 * 1024  # all else in a round's message takes less than 6 KB
SEEDS = 64  # tried for a round: if half of all seeds ask enough devices, all 64 fail once in 2^64 rounds


Choose = Callable[[list[str], int], list[str]]


@dataclass(frozen=True)
class Cohort:
    """The devices that `round` asks: these, those that the draw asks, or (None) all."""

    round: int
    rule: frozenset[str] | Draw | None = None

    def asks(self, device: str) -> bool:
        return is_asked(self.rule, self.round, device)

    @property
    def message(self) -> list[str] | Draw | None:
        """As the round announces it."""
        return sorted(self.rule) if isinstance(self.rule, frozenset) else self.rule


def check(config: RoundSettings) -> None:
    """UsageError if no round could ask so many devices."""
    if config.mode == "async" and config.goal is None:
        raise UsageError("asynchronous rounds close at their goal: set goal, how many devices report for a model")
    if config.over_select is not None and config.fraction == 1.0 and config.goal is None:
        raise UsageError("over_select asks so many times the goal: set goal, or a fraction below 1")
    selection.check(config)


def goal_of(config: RoundSettings, present: int) -> int | None:
    """The number of reports at which a round of `present` devices closes; None: when all that it asks have reported."""
    if config.goal is not None or config.over_select is None:
        return config.goal
    return max(1, config.min_reports, round(config.fraction * present))


def expected_reports(config: RoundSettings) -> int:
    """How many updates a round will bring at least, by what is known before the first."""
    asked = size(config, config.expect) if config.expect else 1
    return max(asked, config.min_reports, config.goal or 1)


def gather(
    config: RoundSettings, run: str, round: int, worth: list[str], *, rng: random.Random, others: Collection[str] = (),
    closed: bool = False, choose: Choose | None = None, list_bytes: int = LIST_BYTES,
) -> Cohort:  # fmt: skip
    """The cohort of `round`, from the devices that are present: those worth waiting for, and the `others`. `closed`: no
    device beside them is to be asked, so a list names them even where all are asked. `choose` selects so many of the
    devices worth waiting for; None: each alike."""
    wanted = min(size(config, len(worth)), len(worth) + len(others))
    if config.cohort == "list":
        if config.fraction == 1.0 and config.over_select is None and not closed:
            return Cohort(round)
        named = min(wanted, len(worth))
        names = rng.sample(worth, named) if choose is None else choose(worth, named)
        names += [device for device in others if rng.random() < wanted / len(worth)]
        if len(msgspec.json.encode(names)) <= list_bytes:
            return Cohort(round, frozenset(names))
    rule = None if wanted >= len(worth) else _draw(run, round, wanted / len(worth), worth, config.min_reports)
    return Cohort(round, rule)


def size(config: RoundSettings, present: int) -> int:
    """How many of `present` devices a round asks, as far as there are so many."""
    wanted = config.fraction * present
    if config.over_select is not None:
        wanted = math.ceil(config.over_select * (goal_of(config, present) or 0))
    return max(1, config.min_reports, round(wanted))


def _draw(run: str, number: int, probability: float, present: list[str], at_least: int) -> Draw:
    """The draw of the first seed that asks `at_least` so many of the devices present. Seeds come from run and round, so
    an aggregator that starts again and reopens the round asks the same devices."""
    for attempt in range(SEEDS):
        digest = hashlib.sha256(f"{run}\n{number}\n{attempt}".encode()).digest()
        draw = Draw(int.from_bytes(digest[:6], "little"), probability)
        if sum(draw.asks(number, device) for device in present) >= at_least:
            break
    return draw
