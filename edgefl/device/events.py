"""Events and actions of DeviceSession: the shared ones (machine.py), and those that only a device knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import Struct, field

from .. import machine
from ..protocol.manifest import Manifest
from ..protocol.round import Round
from ..protocol.update_header import UpdateHeader
from ..settings import Mode
from .owner.budget import Spent
from .seen import Seen
from .slots import Slot


class Outbox(Struct, frozen=True):
    """The newest update, as it lies on disk: all that a restarted device needs to report it.

    `attempt` is the attempt of the round in which the device trained, `counted` the one in which the aggregator counted
    the update; 0: there is no such receipt. `stamp` names the data that it was trained on (DataStamp).
    """

    manifest: str
    round: int
    version: int
    blob: bytes
    counted: int = 0
    attempt: int = 0
    stamp: int = 0

    @property
    def mode(self) -> Mode:
        """The mode of its round."""
        return UpdateHeader.mode_of(self.blob)


class TrainJob(Struct, frozen=True, eq=False):
    """One round's work: `params` are the little-endian float32 bytes of the global model as it came, with
    side vectors behind the params (Manifest.unstack), b"" if the round needs none. The update's payload has at most
    `max_bytes`; 0: as many as its codec takes. `judges`: the model is no round's yet, so it is evaluated as it came,
    and nothing is made of it or kept."""

    manifest: Manifest
    round: Round
    params: bytes
    bytes_down: int
    max_bytes: int = 0
    judges: bool = False


class StartTraining(Struct, frozen=True):
    """Action: do in the background what the round is for: train, only evaluate, or tell of the data's columns; then
    answer with Trained or Failed for the same job."""

    job: TrainJob


class CancelTraining(Struct, frozen=True):
    """Action: stop the training; its answer is not wanted any more."""


class Origin(Struct, frozen=True):
    """Where an update comes from, for the owner's ledger: the SHA-256 of the model that it was trained from, the L2
    norm of its delta, the norm that the delta had before the owner's policy clipped it (0: it was not clipped), and
    what names the key that signed the round ("": none did). `run` is the manifest's. `epsilon` at `delta`: what a
    masked round with noise says is spent once it is over, of all devices."""

    model_sha256: str
    norm: float = 0.0
    clipped_from: float = 0.0
    signer: str = ""
    run: str = ""
    epsilon: float = 0.0
    delta: float = 0.0


@dataclasses.dataclass(frozen=True)
class SaveUpdate:
    """Action: make the update, its slots and its entry in the ledger durable before carrying out what follows.

    The slots (slots.py) are new: the current ones stay as well, until the update is dropped.
    """

    outbox: Outbox
    slots: Mapping[str, Slot] = dataclasses.field(default_factory=dict)
    origin: Origin | None = dataclasses.field(default=None, compare=False)  # None: no ledger is kept


class MarkCounted(Struct, frozen=True):
    """Action: make the saved update's `counted` durable."""

    attempt: int


@dataclasses.dataclass(frozen=True)
class DropUpdate:
    """Action: drop the saved update, in one transaction. If it was `applied` to the model, its slots replace all
    current ones; otherwise they are dropped too, and the current ones stay. `receipt` is what the aggregator has said
    of the update, for the owner's ledger."""

    applied: bool = False
    receipt: Literal["", "counted", "rejected"] = dataclasses.field(default="", compare=False)


class SaveSpent(Struct, frozen=True):
    """Action: make what the device has spent of its byte budget durable before carrying out what follows."""

    spent: Spent


class SavePlan(Struct, frozen=True):
    """Action: keep what a plan is in words, under its id, for the owner who is to approve it; or, if it is `approved`
    because it was the first, that it is."""

    plan: str
    words: str
    approved: bool = False


class SaveSeen(Struct, frozen=True):
    """Action: make what the device has seen of its federation durable before carrying out what follows."""

    seen: Seen


class KeepModel(Struct, frozen=True, eq=False):
    """Action: the model that `round` names is accepted (delivery.py): write the owner's files of it. `params` are the
    little-endian float32 bytes of the model as it came, as in a TrainJob. Answer with NotKept if that fails."""

    manifest: Manifest
    round: Round
    params: bytes


class KeepSkeleton(Struct, frozen=True, eq=False):
    """Action: keep the skeleton of the model's ONNX file, which the next models are put into."""

    blob: bytes


class KeepBase(Struct, frozen=True, eq=False):
    """Action: keep the params that no training changes, little-endian float32, in the place of others, and give them
    to the next session. A host that can't does without: they are fetched again."""

    sha256: str
    numbers: bytes


class NotKept(Struct, frozen=True):
    """Event: the owner's files could not be written, for this reason."""

    reason: str


class Trained(Struct, frozen=True):
    """Event: `blob` is the update, header and encoded delta; `slots` are what it leaves for later rounds, by name;
    `stamp` names the data (DataStamp); `norm` and `clipped_from` are an Origin's."""

    job: TrainJob
    blob: bytes
    slots: Mapping[str, bytes] = field(default_factory=dict)
    stamp: int = 0
    norm: float = 0.0
    clipped_from: float = 0.0


class DataStamp(Struct, frozen=True):
    """Event: the device's data are in the state that this number names; 0: the host can't tell."""

    stamp: int


class Failed(Struct, frozen=True):
    """Event: training was not possible. The device gives the round up, and its status says why: `code` is one of
    trouble.CODES, and `reason` holds no value from the data. `unfit` is the DataStamp of data that the owner's policy
    does not let this manifest train on, such as too few, or whose targets do not fit its loss; 0: something else was
    the reason. `final`: the device has spent on this round what it may, and does not try it again."""

    job: TrainJob
    reason: str
    code: str = "error"
    unfit: int = 0
    final: bool = False


class Pause(Struct, frozen=True):
    """Event: the owner pauses the device for this reason; an empty reason ends the pause. `code` is one of
    trouble.CODES, or "" if the reason says it all."""

    reason: str
    code: str = ""


class Approved(Struct, frozen=True):
    """Event: these are all the plans that the owner has approved on this device."""

    plans: frozenset[str]


class Unable(Struct, frozen=True):
    """Event: the device can't train, for this reason, until the host says otherwise by an empty reason.

    `code` is one of trouble.CODES; `num_examples` is how many the device has, if that is news.
    """

    reason: str
    code: str = "hung"
    num_examples: int | None = None


class Noticed(Struct, frozen=True):
    """Event: the host has something to tell beside the device's state, such as how many rows were left out; an empty
    reason ends it. It holds no value from the data."""

    reason: str
    code: str = "data"


Event: TypeAlias = machine.Event | Trained | DataStamp | Failed | Pause | Unable | Approved | Noticed | NotKept
Stored: TypeAlias = SaveUpdate | MarkCounted | DropUpdate | SaveSpent | SavePlan | SaveSeen
Action: TypeAlias = machine.Action | StartTraining | CancelTraining | Stored | KeepModel | KeepSkeleton | KeepBase
