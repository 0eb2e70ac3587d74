"""Events and actions of RoundCoordinator: the shared ones (machine.py), and those that only an aggregator knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from .. import machine
from ..history_record import RoundRecord
from ..privacy.clipping import ClipState
from ..privacy.ledger import SaveLedger
from ..profiles import Profile
from ..protocol.terms import Party
from ..settings import GateSettings, RoundSettings
from ..strategies import State
from ..trust.ed25519 import SigningKey
from ..trust.roster import Roster
from .devices.quarantine import Suspect
from .masked.saved_ask import SavedAsk


@dataclass(frozen=True, eq=False)
class Evaluate:
    """Action: evaluate these (P,) params on the test set, and answer with Evaluated."""

    params: np.ndarray


@dataclass(frozen=True)
class Evaluated:
    """Event: loss and accuracy on the test set, None without a test set. `update_s` is the processor time that each
    update of the round took, if the host knows it."""

    loss: float | None = None
    accuracy: float | None = None
    update_s: float | None = None


@dataclass(frozen=True, eq=False)
class Commit:
    """Action: make the round's record durable before carrying out what follows, and in the same transaction its params
    if it has any, the strategy's `state` that belongs to these params, the removal of the saved late updates `drop`, by
    device and round, and where an adaptive `clip` is now; None if the clip is fixed."""

    record: RoundRecord
    params: np.ndarray | None
    drop: Sequence[tuple[str, int]] = ()
    state: State = field(default_factory=dict)
    clip: ClipState | None = None


@dataclass(frozen=True, eq=False)
class LateUpdate:
    """A device's update of `round`, with its header, which arrived after the round was over. The device trained from
    `version`; `codec` is the wire id of its codec."""

    device: str
    round: int
    version: int
    codec: int
    blob: bytes


@dataclass(frozen=True, eq=False)
class SaveLate:
    """Action: make a late update durable before what follows, the receipt at which its device drops the update."""

    update: LateUpdate


@dataclass(frozen=True)
class ReloadLate:
    """Action: answer with ReloadedLate, if late updates are saved."""


@dataclass(frozen=True, eq=False)
class ReloadedLate:
    """Event: the saved late updates that are in no model yet. They are iterated over once, so the host may read them
    from disk one by one, and memory does not grow with their number."""

    updates: Iterable[LateUpdate]


@dataclass(frozen=True, eq=False)
class Rollback:
    """Event: the operator wants these (P,) params, of `version`, committed again as a new version. `state` is what the
    strategy's was after them. `order` names the order in its answer, Answered."""

    order: str
    version: int
    params: np.ndarray
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """Action: tell the operator what became of an order."""

    order: str
    done: bool
    text: str


@dataclass(frozen=True)
class Finished:
    """Action: there are no more rounds."""

    reason: str


@dataclass(frozen=True)
class SaveAttempt:
    """Action: make the number of this start durable before carrying out what follows."""

    attempt: int


@dataclass(frozen=True, eq=False)
class SaveAsk:
    """Action: make the set of a masked round durable before what follows, which shows it to the helpers. The commit of
    its round removes it."""

    saved: SavedAsk


@dataclass(frozen=True, eq=False)
class SaveSuspects:
    """Action: make these durable before what follows, in place of those that were saved before, by device."""

    suspects: Mapping[str, Suspect]


@dataclass(frozen=True)
class Release:
    """Event: the operator ends the quarantine, or the mute, of a device. `order` names the order in its answer."""

    order: str
    device: str


@dataclass(frozen=True)
class Reconfigured:
    """Event: the operator has changed these settings, which go together. They hold from the next round on."""

    rounds: RoundSettings
    gate: GateSettings


@dataclass(frozen=True)
class Pause:
    """Event: the operator wants no round to ask the device until it is resumed. `order`: see Rollback."""

    order: str
    device: str
    why: str = ""


@dataclass(frozen=True)
class Resume:
    """Event: the operator wants rounds to ask the device again."""

    order: str
    device: str


@dataclass(frozen=True, eq=False)
class SavePaused:
    """Action: make these durable before what follows, in place of those that were saved before: the devices that an
    operator has paused, and why."""

    paused: Mapping[str, str]


@dataclass(frozen=True)
class Forget:
    """Event: the operator wants nothing to be left of a device that is gone."""

    order: str
    device: str


@dataclass(frozen=True)
class Erase:
    """Action: erase the device from all records on disk before carrying out what follows. It may be there no more."""

    device: str


@dataclass(frozen=True)
class AskProfile:
    """Event: the operator wants a profile of the devices' columns. `order` names the order in its answer."""

    order: str


@dataclass(frozen=True, eq=False)
class SaveProfile:
    """Action: keep the newest profile for the operator. It can be made anew, but a crash should not cost it."""

    profile: Profile


@dataclass(frozen=True)
class Fenced:
    """Action: another aggregator has the federation. No action follows; the host ends as failed."""

    reason: str


@dataclass(frozen=True, eq=False)
class RosterRead:
    """Event: the root has certified another roster of devices."""

    roster: Roster


@dataclass(frozen=True, eq=False)
class SignerRead:
    """Event: the root has certified another key of this aggregator, or the next epoch. `certificate` is the sealed
    signer.json."""

    key: SigningKey
    certificate: bytes
    epoch: int


@dataclass(frozen=True)
class HelpersRead:
    """Event: the root has certified other keys of the helpers. `certificates` are sealed, in the order of `parties`;
    they hold from the next round on."""

    parties: tuple[Party, ...]
    certificates: tuple[str, ...]


FromHost: TypeAlias = (
    Evaluated | ReloadedLate | Rollback | Release | AskProfile | RosterRead | SignerRead | HelpersRead | Reconfigured
)
Event: TypeAlias = machine.Event | FromHost | Pause | Resume | Forget
Action: TypeAlias = (
    machine.Action
    | Evaluate
    | Commit
    | SaveLate
    | ReloadLate
    | Finished
    | SaveAttempt
    | SaveAsk
    | SaveLedger
    | SaveSuspects
    | SavePaused
    | Erase
    | SaveProfile
    | Fenced
    | Answered
)
