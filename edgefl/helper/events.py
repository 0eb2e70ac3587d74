"""Events and actions of Helper: the shared ones (machine.py), and those that only a helper knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from .. import machine
from ..trust.ed25519 import SigningKey
from ..trust.roster import Roster
from .opening import Job, Sums
from .refusal import Refused
from .state import State


class Keys(NamedTuple):
    """Our keys of one epoch, and the root's public key. `box` is the X25519 key that devices seal to."""

    name: str
    federation: str
    epoch: int
    root: bytes
    box_public: bytes
    box_private: bytes
    signing: SigningKey


@dataclass(frozen=True)
class RosterRead:
    """Event: the roster was replaced."""

    roster: Roster


@dataclass(frozen=True)
class KeysRead:
    """Event: our keys were replaced; those of a later epoch end the one before."""

    keys: Keys


@dataclass(frozen=True, eq=False)
class JobDone:
    """Event: the answer to Open."""

    job: Job
    result: Sums | Refused


@dataclass(frozen=True)
class Found:
    """Event: the answer to Find; None: it is damaged."""

    round: int
    answer: bytes | None


@dataclass(frozen=True, eq=False)
class Open:
    """Action: run the job in the background, then answer with JobDone. There is one at a time."""

    job: Job


@dataclass(frozen=True)
class SaveOpened:
    """Action: make the state and the answer of its newest round durable, before any later action is carried out.
    Answers of rounds that the state does not name are dropped. `memory`: of correlated noise, which replaces the one
    before; None: that stays."""

    state: State
    answer: bytes
    memory: bytes | None = None


@dataclass(frozen=True)
class SaveState:
    """Action: make the state durable; answers of rounds that it does not name are dropped."""

    state: State


@dataclass(frozen=True)
class Find:
    """Action: answer with Found, the kept answer of this round."""

    round: int


Event: TypeAlias = machine.Event | RosterRead | KeysRead | JobDone | Found
Action: TypeAlias = machine.Action | Open | SaveOpened | SaveState | Find
