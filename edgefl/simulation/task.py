"""Task: one device's training of one round, as data. Whatever computes it, threads or other machines, gets the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.trainer import Trainer
from ..device.events import TrainJob
from ..device.slots import Slot
from ..device.training import LocalUpdate, train_update
from ..errors import EdgeFLError
from ..protocol.trouble import Trouble


class Failed(EdgeFLError):
    """A training that failed where it was computed, with what may be told of that."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.text)
        self.trouble = trouble


def trouble_of(error: EdgeFLError) -> Trouble:
    """What a device's status may tell of a training that failed, here or elsewhere."""
    return error.trouble if isinstance(error, Failed) else Trouble.of(error)


@dataclass(eq=False)
class Task:
    """`slots` are those that the device had when the task was given: a worker may begin much later."""

    device: str
    job: TrainJob
    x: np.ndarray
    y: np.ndarray
    slots: Mapping[str, Slot]

    def __call__(self, trainer: Trainer) -> LocalUpdate:
        return train_update(trainer, self.job, self.device, self.x, self.y, load_slot=self.slots.get)
