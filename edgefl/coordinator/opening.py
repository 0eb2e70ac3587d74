"""Opening: which devices a round asks and waits for, and how long, when it begins. No I/O. Part of RoundCoordinator.

A round waits for the devices that are worth it (standing.py). If no such device is asked, it waits for all that it
asks. A round without a goal waits, once it has enough reports, no longer than its patience: a few times as long as the
slowest of these devices took last (patience.py has what holds for newcomers), and never beyond its deadline.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from dataclasses import dataclass, field

from ..history_text import named
from ..machine import Note
from ..settings import RoundSettings
from .devices import cohort
from .devices.cohort import Choose, Cohort
from .devices.standing import Standing

DEADLINES = 8  # that a round lasts at most, as long as devices are at work


@dataclass(frozen=True)
class Opening:
    """What a round begins with. `skipped`: the asked devices that it does not wait for, and why. `unearned`: the
    devices that it names. `deadline_s` is its first deadline, which is as long as so many `deadlines` of the settings.
    `patience_s`: how long it waits, once it has enough reports, for devices whose time is known; `newcomers`: it waits
    for others too (patience.py)."""

    cohort: Cohort
    asked: list[str]
    waiting: list[str]
    goal: int | None = None
    deadline_s: float = math.inf
    deadlines: int = 1
    patience_s: float = math.inf
    newcomers: bool = False
    skipped: dict[str, str] = field(default_factory=dict)
    unearned: Collection[str] = ()


def plan(
    config: RoundSettings, standing: Standing, *, run: str, round: int, present: list[str], rng: random.Random,
    closed: bool = False, choose: Choose | None = None, list_bytes: int = cohort.LIST_BYTES,
) -> Opening:  # fmt: skip
    """The opening of `round`, while these devices are present. `closed`: it asks no device beside them. `choose`: see
    cohort.py."""
    asks = min(cohort.size(config, len(present)), len(present))
    rank = math.ceil(config.min_reports * len(present) / asks)
    survey = standing.survey(present, config.deadline_s, rank=rank, most_s=DEADLINES * config.deadline_s)
    worth, others = (survey.worth, survey.skipped) if survey.worth else (present, {})
    invited = cohort.gather(
        config, run, round, worth, rng=rng, others=others, closed=closed, choose=choose,
        list_bytes=list_bytes,
    )  # fmt: skip
    asked = [device for device in present if invited.asks(device)]
    waiting = [device for device in asked if device not in survey.skipped]
    skipped = {device: why for device, why in survey.skipped.items() if invited.asks(device)} if waiting else {}
    waiting = waiting or asked
    standing.ask(round, asked, present)
    goal = cohort.goal_of(config, len(worth))
    return Opening(
        invited, asked, waiting, goal, survey.deadline_s, math.ceil(survey.deadline_s / config.deadline_s),
        standing.patience_s(waiting) if goal is None else math.inf, any(map(standing.is_new, waiting)), skipped,
        standing.name(round, survey.skipped),
    )  # fmt: skip


class Waits:
    """What the log says about the devices that rounds do not wait for: a line when they change."""

    def __init__(self) -> None:
        self._told: frozenset[str] = frozenset()

    def note(self, round: int, opening: Opening) -> list[Note]:
        """Whom the round waits for, if that has changed since the last one."""
        skipped, told = opening.skipped, self._told
        self._told = frozenset(skipped)
        if self._told == told:
            return []
        text = f"round {round} waits for {len(opening.waiting)} of {len(opening.asked)} devices"
        return [Note("info", f"{text}; not for {named(skipped)}" if skipped else text, round=round)]
