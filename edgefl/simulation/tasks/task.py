"""Task: one device's training of one round, as data. Whatever computes it, threads or other machines, gets the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...core.rows import Rows
from ...core.trainer import Trainer
from ...device.events import TrainJob
from ...device.slots import Slot
from ...device.training import LocalUpdate, train_update, trains_plainly
from ...errors import EdgeFLError
from ...protocol.trouble import Trouble
from ..devices.attacks import flipped
from .shares import Share
from .slot_file import whole


class Failed(EdgeFLError):
    """A training that failed where it was computed, with what may be told of that."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.text)
        self.trouble = trouble


def trouble_of(error: EdgeFLError) -> Trouble:
    """What a device's status may tell of a training that failed, here or elsewhere."""
    return error.trouble if isinstance(error, Failed) else Trouble.of(error)


class Drawn:
    """Random bytes that follow from a text: simulated masks hide nothing, and a run repeats."""

    def __init__(self, seed: str) -> None:
        self._seed, self._calls = seed.encode(), 0

    def __call__(self, size: int) -> bytes:
        self._calls += 1
        return hashlib.shake_256(b"%b\n%d" % (self._seed, self._calls)).digest(size)


@dataclass(eq=False)
class Task:
    """`slots` are those that the device had when the task was given: a worker may begin much later. `flip`: labels are
    turned around, of so many classes; 0: they are as they are. `salt` tells this training from the device's others, so
    that no mask is used twice."""

    device: str
    job: TrainJob
    share: Share
    slots: Mapping[str, Slot]
    flip: int = 0
    salt: int = 0

    def __call__(self, trainer: Trainer) -> LocalUpdate:
        if not self.flip and trains_plainly(self.job):
            return self._train(trainer, *self.share.in_place())
        x, y = self.share.take()
        y = flipped(y, self.flip) if self.flip else y
        return self._train(trainer, x, y)

    def _train(self, trainer: Trainer, x: np.ndarray | Rows, y: np.ndarray | Rows) -> LocalUpdate:
        drawn = Drawn(f"{self.job.manifest.train.seed}\n{self.device}\n{self.job.round.round}\n{self.salt}")
        return train_update(trainer, self.job, self.device, x, y, load_slot=self._load, randomness=drawn)

    def _load(self, name: str) -> Slot | None:
        slot = self.slots.get(name)
        return None if slot is None else whole(slot)
