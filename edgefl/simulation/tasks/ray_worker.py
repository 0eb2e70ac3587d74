"""RayWorker: computes tasks in a process of a Ray cluster. What it gets and returns are bytes, arrays and numbers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import __version__
from ..._core import isa
from ...core.trainer import Trainer
from ...device.events import TrainJob
from ...device.slots import Slot
from ...device.training import make_trainer
from ...errors import EdgeFLError
from ...protocol.manifest import Manifest
from ...protocol.messages import RETAINED_LIMIT, decode
from ...protocol.round import Round
from ...protocol.trouble import Trouble
from .shares import Share
from .task import Task

Answer = tuple[bytes, dict[str, bytes], tuple[float, float], tuple[str, str] | None]


class RayWorker:
    """`driver_isa` and `driver_version` are those of the process that has the fleet."""

    def __init__(self, driver_isa: str, driver_version: str) -> None:
        self._unfit = ""
        if isa() != driver_isa:
            self._unfit = f"on {platform.node()} computes with {isa()}, this machine with {driver_isa}"
        elif __version__ != driver_version:
            self._unfit = f"on {platform.node()} has EdgeFL {__version__}, this machine {driver_version}"
        self._manifest: Manifest | None = None
        self._trainer: Trainer | None = None
        self._common: Common | None = None

    def check(self) -> str:
        """Why its bits would be others; "" if they would not."""
        return self._unfit

    def train(
        self, device: str, *, manifest: bytes, round: bytes, params: bytes, x: np.ndarray, y: np.ndarray,
        rows: np.ndarray, numbers: Mapping[str, Any], slots: Mapping[str, tuple[str, int, bytes, int]], flip: int,
    ) -> Answer:  # fmt: skip
        """What a Task of these fields computes. `x` and `y` are those of all devices, `rows` the device's own."""
        if self._unfit:
            raise RuntimeError(self._unfit)  # of a worker that was started again, on another machine
        if self._manifest is None or self._manifest.raw != manifest:
            self._manifest, self._trainer = decode(Manifest, manifest, RETAINED_LIMIT), None
        job = TrainJob(self._manifest, decode(Round, round, RETAINED_LIMIT), params, **numbers)
        held = {name: Slot(*fields) for name, fields in slots.items()}
        try:
            if self._trainer is None:
                self._trainer = make_trainer(job)
            made = Task(device, job, Share(self._same(x, y), rows), held, flip)(self._trainer)
        except EdgeFLError as error:
            why = Trouble.of(error)
            return b"", {}, (0.0, 0.0), (why.code, why.text)
        return made.blob, dict(made.slots), (made.norm, made.clipped_from), None

    def _same(self, x: np.ndarray, y: np.ndarray) -> Common:
        """The examples of the last task if these are the same. Ray makes new arrays of what is in its store for each
        call, and a trainer checks all examples of arrays that it has not seen."""
        old = self._common
        if old is None or not (is_same(old.x_train, x) and is_same(old.y_train, y)):
            old = self._common = Common(x, y)
        return old


def is_same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether they are the same bytes, read alike. Memory is not given to another as long as an array has it."""
    found: bool = a.__array_interface__ == b.__array_interface__
    return found


@dataclass
class Common:
    """The examples of all devices, without a Dataset's checks, which they have passed."""

    x_train: np.ndarray
    y_train: np.ndarray
