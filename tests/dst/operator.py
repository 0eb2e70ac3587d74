"""What an aggregator's operator and its test set do in a schedule: candidates that the gate refuses, and roll-backs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from edgefl.coordinator.events import AskProfile, Evaluated, Forget, Pause, Resume
from edgefl.core.seeds import derived_seed
from edgefl.protocol.round import Round
from edgefl.settings import GateSettings

if TYPE_CHECKING:
    from .schedule import Schedule
    from .world import World

GOOD, BAD = 0.9, 0.1
CANARY_DEADLINE_S = 30.0
REFUSED_IN = 4  # one candidate in so many is bad
ORDER_EVERY_S = 60.0
NOBODY = "nobody"  # a device that is gone
Order = int | AskProfile | Pause | Resume | Forget  # a version: roll back to it


def gate_of(schedule: Schedule) -> GateSettings:
    """A third of all schedules has a gate with a test set, and a ninth one that canaries keep: all devices are."""
    judge: Literal["none", "test", "canaries"] = ("test", "canaries", "none")[min(schedule.seed % 3, 2)]
    if judge == "canaries" and (schedule.seed % 9 != 1 or schedule.masked):  # whose owners let nothing else leave
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


def is_watched(schedule: Schedule) -> bool:
    """Whether the state of the fleet is kept on the broker: where the operator acts on it."""
    return schedule.seed % 5 in (2, 3)


class Operator:
    """In a fifth of all schedules, rolls back now and then to any version that is kept, until faults end; in another
    fifth, asks for profiles, and rolls back at times; in a third one pauses and resumes devices, removes one that there
    is not, and changes settings. An order lies on the aggregator's disk until it is answered."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(world.schedule.seed + 2)
        self._given = 0
        kinds = {0: self._roll_back, 3: self._profile, 2: self._act}
        self._kind = kinds.get(world.schedule.seed % 5) if world.has_operator else None
        if self._kind is not None:
            self._later()

    def heal(self) -> None:
        """All devices are to be asked again, and the first settings hold."""
        if self._kind == self._act:
            for device in self._world.schedule.devices:
                self._give(Resume("", device))
            self._world.aggregator.reload(self._world.schedule.config)

    def _later(self) -> None:
        self._world.clock.after(self._rng.expovariate(1 / ORDER_EVERY_S), self._order)

    def _order(self) -> None:
        if self._world.healed_at is None:
            assert self._kind is not None
            self._kind()
            self._later()

    def _give(self, order: Order) -> None:
        self._given += 1
        self._world.trace("operator", "%r", order)
        self._world.aggregator.order(f"order {self._given}", order)

    def _profile(self) -> None:
        if self._rng.random() < 0.3:
            self._roll_back()
        else:
            self._give(AskProfile(""))

    def _roll_back(self) -> None:
        versions = [version for version, _, _ in self._world.aggregator.disk.models]
        if versions:
            self._give(self._rng.choice(versions))

    def _act(self) -> None:
        rng, schedule = self._rng, self._world.schedule
        device = rng.choice(schedule.devices)
        what = rng.choice(["pause", "pause", "resume", "remove", "settings"])
        if what == "settings":
            deadline_s = rng.choice([schedule.config.deadline_s, schedule.config.deadline_s / 2])
            changed = {"deadline_s": deadline_s, "interval_s": rng.choice([None, 20.0]), "updates_per_s": 10.0}
            self._world.aggregator.reload(msgspec.structs.replace(schedule.config, **changed))
        else:
            orders = {"pause": Pause("", device, "winter"), "resume": Resume("", device), "remove": Forget("", NOBODY)}
            self._give(orders[what])
