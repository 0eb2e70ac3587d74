"""The contract of a local rule: what it is given (Work), and what it makes of that (Learned).

Design:
  a) A rule computes in the thread that trains. It reads no clock and no disk, and keeps nothing between two rounds but
     its slots: two devices may share the object.
  b) The slots that `keep` returns are saved with the update, and become current when it is in the model (slots.py). A
     rule is called again with the same slots if the update was lost. What it leaves out is gone once the update counts.
  c) The same work gives the same bits: what is random follows from `seed`.
  d) What it reads of slots and side vectors came from a disk or a network, but has the lengths of the plan, and is
     finite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ...core.mask import Mask
from ...core.trainer import Cancelled, LocalResult, PartTrainer, Trainer
from ...errors import DataError, UsageError
from ...settings import TrainSettings
from ..holdout import Shares

Keep = Callable[[np.ndarray, Callable[[], np.ndarray]], Mapping[str, bytes]]


def nothing(sent: np.ndarray, received: Callable[[], np.ndarray]) -> Mapping[str, bytes]:
    """A Keep of a rule that has no slots."""
    return {}


@dataclass(frozen=True, eq=False)
class Work:
    """A round's work on one device.

    `params` (P,) float32 is the round's model, with this device's own params in it where `mask` says that they are
    personal, and `sides` are the strategy's side vectors, (P,) float32 by name. `load` reads a current slot: None if
    the device has none, or if it is damaged or of another run. `shares` are the examples: train on `x` and `y` only.
    `train` are the manifest's settings for this round. With `feedback`, what the codec drops of an update is in the
    next one. `wanted`: whether the work has not been cancelled.
    """

    trainer: Trainer
    params: np.ndarray
    shares: Shares
    train: TrainSettings
    seed: int
    round: int
    load: Callable[[str], bytes | None]
    mask: Mask
    sides: Mapping[str, np.ndarray] = field(default_factory=dict)
    feedback: bool = False
    wanted: Callable[[], bool] = lambda: True

    def fit(
        self, start: np.ndarray | None = None, *, trainer: Trainer | PartTrainer | None = None, **changes: Any
    ) -> LocalResult:
        """Local training as the settings have it, from `start` (None: the round's model), with `changes` to the
        arguments of `Trainer.fit`; by `trainer`, which may leave params as they are."""
        train, shares = self.train, self.shares
        options: dict[str, Any] = {
            "epochs": train.epochs, "batch_size": train.batch_size, "lr": train.lr, "momentum": train.momentum,
            "weight_decay": train.weight_decay, "prox_mu": train.prox_mu, "clip_norm": train.clip_norm,
            "optimizer": train.optimizer, "max_steps": train.max_steps, "seed": self.seed,
        }  # fmt: skip
        self.check()
        trainer = trainer or self.trainer
        return trainer.fit(self.params if start is None else start, shares.x, shares.y, **{**options, **changes})

    def check(self) -> None:
        """Cancelled if nobody wants the work any more: a cancel between two calls of the trainer stops neither."""
        if not self.wanted():
            raise Cancelled("training was cancelled: start the round's training again to take part")

    def side(self, name: str) -> np.ndarray:
        """The strategy's side vector of that name, (P,) float32; DataError if the model came without it."""
        if name not in self.sides:
            raise DataError(f"the model came without the strategy's {name}: the manifest has to name it in `sides`")
        return self.sides[name]

    def vector(self, name: str, size: int | None = None) -> np.ndarray | None:
        """The slot `name` as (size,) float32, P of them if that is None, as `pack` made it; None if there is none."""
        blob = self.load(name)
        if blob is None or len(blob) != 4 * (len(self.params) if size is None else size):
            return None
        vector = np.frombuffer(blob, "<f4").astype(np.float32)
        return vector if np.isfinite(vector).all() else None


class Learned(NamedTuple):
    """What a rule has learned: `delta` (P,) float32 is local - global; `steps` and `loss` are told to the aggregator.

    `keep` makes the slots, once it is known what leaves the device: `sent` is the delta of the shared params, after the
    owner's bound on its norm, and `received()` what the aggregator decodes of it. `sides` are the vectors (P,) that
    `Rule.sent_sides` names, which go up behind the delta; then `sent` and `received()` have them behind it too.
    `sides_count` is what a number in them counts in the strategy's sum, where that differs from round to round.
    """

    delta: np.ndarray
    steps: int
    loss: float
    keep: Keep = nothing
    sides: Mapping[str, np.ndarray] = MappingProxyType({})
    sides_count: float | None = None


class Rule(ABC):
    """A local rule. It is made with the options in the manifest; UsageError for those that it can't work with."""

    passes: float = 1.0  # what it computes, as a multiple of plain training: effort.py counts it
    more_epochs: float = 0.0  # and epochs that it trains beside that
    gradients: ClassVar[int] = 0  # beside that, so many gradients over all examples
    sent_sides: ClassVar[tuple[str, ...]] = ()  # what it sends beside the delta
    makes_model: ClassVar[bool] = False  # its device has a model of its own: see `own`
    trains_to_judge: ClassVar[bool] = False  # `own` trains, so rounds that only evaluate take as long

    @abstractmethod
    def train(self, work: Work) -> Learned:
        """One round. Raises Cancelled, Diverged, DataError."""

    def own(self, work: Work) -> np.ndarray | None:
        """(P,) float32 of the model that the device has for itself when it receives `work.params`, which it compares
        with that (device/personal.py); None: it has none yet. Raises as `train`."""
        return None


def pack(vector: np.ndarray) -> bytes:
    """A vector as a slot: little-endian float32."""
    return vector.astype("<f4", copy=False).tobytes()


def own_slot(vector: np.ndarray, head: bytes = b"") -> dict[str, bytes]:
    """The slot `personal` of what a device has of its own, behind `head`. No slot if it is not finite any more: then
    the device begins anew with the next model that it receives."""
    if np.isfinite(vector).all():
        return {"personal": head + pack(vector)}
    return {}


def option(name: str, value: float, least: float, most: float) -> float:
    """An option that came with a manifest; UsageError if it is not a number from `least` to `most`. The owner's bound
    on computing follows from options, so no rule may take them as they come."""
    if not least <= value <= most:
        raise UsageError(f"local rule: {name} is {value:g}, a number from {least:g} to {most:g} is needed")
    return float(value)


def whole_passes(name: str, value: float) -> int:
    """An option that counts passes over the examples, as `option`."""
    if option(name, value, 1, 10_000) % 1:
        raise UsageError(f"local rule: {name} is {value:g}, a whole number is needed")
    return int(value)
