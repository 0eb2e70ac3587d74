"""Events and actions of DeviceSession: the shared ones (machine.py), and those that only a device knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .. import machine
from ..protocol.messages import Manifest, Round, UpdateHeader
from ..settings import Mode


@dataclass(frozen=True)
class Outbox:
    """The newest update, as it is kept on disk: all that a restarted device needs to report it.

    `counted` is the attempt of the round in which the aggregator has counted it, 0 while there is no such receipt;
    `attempt` the one in which the device trained.
    """

    manifest: str
    round: int
    version: int
    blob: bytes
    counted: int = 0
    attempt: int = 0

    @property
    def mode(self) -> Mode:
        """Of its round: where nothing was trained, the header is all there is."""
        return "evaluate" if UpdateHeader.is_all_of(self.blob) else "train"


@dataclass(frozen=True, eq=False)
class TrainJob:
    """One round's work: `params` are the (P,) little-endian float32 bytes of the global model."""

    manifest: Manifest
    round: Round
    params: bytes
    bytes_down: int


@dataclass(frozen=True)
class StartTraining:
    """Action: train, or in a round that only evaluates, evaluate, in the background; then answer with Trained or
    Failed carrying the same job."""

    job: TrainJob


@dataclass(frozen=True)
class CancelTraining:
    """Action: what is being trained is not wanted any more."""


@dataclass(frozen=True)
class SaveUpdate:
    """Action: make the update, and the residual that it leaves, durable before carrying out what follows.

    The residual, (P,) little-endian float32, waits beside the device's own; None if there is none.
    """

    outbox: Outbox
    residual: bytes | None = None


@dataclass(frozen=True)
class MarkCounted:
    """Action: make the saved update's `counted` durable."""

    attempt: int


@dataclass(frozen=True)
class DropUpdate:
    """Action: the saved update has done its work. If the model has it, its residual becomes the device's own; else
    that one goes with it, and the device's own stays. All of it at once, or nothing."""

    applied: bool = False


@dataclass(frozen=True)
class Trained:
    """Event: `blob` is the update, header and encoded delta; `residual` what encoding took from it (SaveUpdate)."""

    job: TrainJob
    blob: bytes
    residual: bytes | None = None


@dataclass(frozen=True)
class Failed:
    """Event: training was not possible; the round is given up and the reason shown in the status."""

    job: TrainJob
    reason: str


@dataclass(frozen=True)
class Pause:
    """Event: the owner says stop, with a reason; an empty one says go on."""

    reason: str


Event: TypeAlias = machine.Event | Trained | Failed | Pause
Action: TypeAlias = machine.Action | StartTraining | CancelTraining | SaveUpdate | MarkCounted | DropUpdate
