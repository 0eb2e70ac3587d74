"""What an aggregator's operator and its test set do in a schedule: candidates that the gate refuses, and roll-backs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgefl.coordinator.events import Evaluated
from edgefl.core.seeds import derived_seed
from edgefl.protocol.messages import Round
from edgefl.settings import GateSettings

if TYPE_CHECKING:
    from .schedule import Schedule
    from .world import World

GOOD, BAD = 0.9, 0.1
CANARY_DEADLINE_S = 30.0
REFUSED_IN = 4  # one candidate in so many is bad
ORDER_EVERY_S = 60.0
PROFILE = -1  # in place of a version: an order of column statistics


def gate_of(schedule: Schedule) -> GateSettings:
    """A third of all schedules has a gate with a test set, and a ninth one that canaries keep: all devices are."""
    judge: Literal["none", "test", "canaries"] = ("test", "canaries", "none")[min(schedule.seed % 3, 2)]
    if judge == "canaries" and schedule.seed % 9 != 1:
        judge = "none"
    return GateSettings(
        judge=judge, canaries=", ".join(schedule.devices), quorum=1, canary_deadline_s=CANARY_DEADLINE_S
    )


def score(schedule: Schedule, params: np.ndarray) -> Evaluated:
    """What a model is worth: it depends on its bits alone. The model that all begins with is good."""
    return Evaluated(0.5, accuracy(schedule, params.tobytes()))


def accuracy(schedule: Schedule, params: bytes) -> float:
    """The same; canaries compare what they have decoded."""
    bad = derived_seed("score", params.hex()) % REFUSED_IN == 0 and params != schedule.params.tobytes()
    return BAD if bad else GOOD


def judges(schedule: Schedule, round: Round) -> bool:
    """Whether a device that works for `round` does so as a canary: its round trains."""
    return round.mode == "evaluate" and schedule.config.mode_of(round.round) == "train"


def is_refused(schedule: Schedule, params: np.ndarray) -> bool:
    """Whether the gate must not let this candidate pass. Canaries see its very bits if the downlink is lossless."""
    judge, whole = gate_of(schedule).judge, schedule.manifest.model_codecs[1] is None
    return (judge == "test" or (judge == "canaries" and whole)) and score(schedule, params).accuracy == BAD


class Operator:
    """In a fifth of all schedules, rolls back now and then to any version that is kept, until faults end; in another
    fifth, asks for profiles. An order lies on the aggregator's disk until it is answered."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(world.schedule.seed + 2)
        if world.schedule.seed % 5 in (0, 3):
            self._later()

    def _later(self) -> None:
        self._world.clock.after(self._rng.expovariate(1 / ORDER_EVERY_S), self._order)

    def _order(self) -> None:
        world = self._world
        if world.healed_at is not None:
            return
        if world.schedule.seed % 5 == 3:
            world.trace("operator", "asks for a profile")
            world.aggregator.order(f"order at {world.clock.now}", PROFILE)
            self._later()
            return
        versions = [version for version, _, _ in world.aggregator.disk.models]
        if versions:
            version = self._rng.choice(versions)
            world.trace("operator", "rolls back to version %d", version)
            world.aggregator.order(f"order {len(world.aggregator.disk.orders)} at {world.clock.now}", version)
        self._later()
