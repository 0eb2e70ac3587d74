"""CoordinatorState: all that RoundCoordinator knows, and what follows from it. No I/O.

The parts are made here, once. Rounds open and close in rounds.py; events are processed in coordinator.py.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import msgspec
import numpy as np

from ..history_record import MOVED, RoundRecord
from ..machine import Publish, WallClock
from ..protocol.manifest import Manifest
from ..protocol.round import Round
from ..protocol.topics import ROOT
from ..settings import AdmissionSettings, FeatureSettings, GateSettings, Mode, RoundSettings
from ..strategies import Strategy
from ..strategies.waiting_room import WaitingRoom
from . import opening as opens
from . import selection
from .closing import Closing
from .devices import cohort
from .devices.presence import Presence
from .devices.quarantine import Suspect
from .devices.resting import Resting
from .events import Action, Forget, Reconfigured, Rollback
from .fence import Fence
from .masked.answered import Answered
from .masked.in_vain import InVain
from .masked.inquiry import Inquiry
from .masked.saved_ask import SavedAsk
from .masked.terms import MaskedTerms
from .masked.unlisted import Unlisted
from .masked.unmasking import Unmasking
from .model.announcer import Announcer, RoundState
from .model.gate import Gate
from .model.jury import Jury
from .model.sweeper import Sweeper
from .profile.rounds import ProfileRounds
from .readiness import Readiness
from .signing import Keys, Open, Signing
from .snapshot import Phase, Snapshot
from .updates.admission import Admission
from .updates.earlier_rounds import EarlierRounds
from .updates.intake import RoundIntake
from .updates.pace import Pace
from .updates.reception import Reception
from .updates.tally import Tally
from .viewers.bulletin import Bulletin
from .viewers.roll import Roll


class CoordinatorState:
    """`round` is the open round, or the one that comes next; `version` counts commits, `attempt` starts of the
    aggregator. `watched`: the state of the fleet is kept on the broker for viewers. `masked`: rounds that train are
    masked, under such terms; `asked`: what an earlier process has asked the helpers for."""

    def __init__(
        self,
        manifest: Manifest,
        config: RoundSettings,
        strategy: Strategy,
        params: np.ndarray,
        *,
        rng: random.Random,
        round: int = 1,
        version: int = 0,
        attempt: int = 1,
        recent: Iterable[RoundRecord] = (),
        update_s: float = 0.0,
        instance: int = 0,
        take_over: bool = False,
        root: str = ROOT,
        gate: GateSettings | None = None,
        keys: Keys | None = None,
        admission: AdmissionSettings | None = None,
        suspects: Mapping[str, Suspect] | None = None,
        room: WaitingRoom | None = None,
        watched: bool = False,
        paused: Mapping[str, str] | None = None,
        features: FeatureSettings | None = None,
        masked: MaskedTerms | None = None,
        asked: SavedAsk | None = None,
    ) -> None:
        cohort.check(config)
        config.check_evaluation(manifest.holdout)
        self.config, self.strategy = config, strategy
        self.params, self.round, self.version = params, round, version
        self.phase: Phase = "waiting"
        self.masked = masked
        self.resting = Resting(0 if masked is None else masked.settings.separation)
        self._answered, self.unlisted = Answered(), Unlisted()
        self._inquiry: Inquiry | None = None  # what helpers know is still to be told
        self._questions = 0  # of what helpers know, in this process
        self._inquired = 0  # the epoch of our certificate in which this process was told it
        self._unheard = False  # a helper has not answered for the last sum
        self._in_vain = InVain()
        self._least_round = 0  # that may be opened, as a helper says
        self._asks_operator = ""  # why the federation waits for its operator
        self._ended = ""  # why it has no more rounds
        self.presence = Presence(only_fresh=config.only_new_data, expect=config.expect)
        self.announcer = Announcer(
            manifest, params, version, attempt=attempt, root=root,
            sides=lambda: [strategy.broadcast()[name] for name in manifest.sides],
        )  # fmt: skip
        self.topics = self.announcer.topics
        self.tally: Tally | None = None
        self.pace = Pace(update_s, config.updates_per_s)
        self.fence = Fence(self.topics.aggregator, manifest.run, attempt, instance, take_over)
        self._rng = rng
        self._codec, self._update_size = manifest.update_codec, manifest.update_size
        self.signing = Open() if keys is None else Signing(self.topics, manifest, keys)
        self.clock = WallClock()
        self.admission = Admission(
            admission or AdmissionSettings(), self._codec, self._update_size, clock=self.clock, signing=self.signing,
            suspects=suspects, room=room, weigh=strategy.weigh, reach=strategy.reach, masked=masked is not None,
            longest=0 if masked is None else max(masked.max_payload("train"), masked.max_payload("profile")),
        )  # fmt: skip
        bounded = self.admission.influence.factor is not None
        self.profiles = ProfileRounds(manifest.plan, features or FeatureSettings(), bounded=bounded)
        for device in self.admission.quarantine.inside:
            self.presence.bar(device)
        for device, why in (paused or {}).items():
            self.presence.pause(device, why)
        self._forgotten: set[str] = set()  # devices that were removed since the open round began
        self._removals: deque[Forget] = deque()  # not carried out yet
        self._settled_at = 0.0  # on this connection, when retained statuses have come
        self.roll = Roll(self.presence, self.admission, self.clock, self.signing.enrolled) if watched else None
        self.bulletin = None if self.roll is None else Bulletin(self.roll, self.topics)
        self.selection = selection.of(config)
        self.earlier = EarlierRounds(
            config, self._codec, self._update_size, self._make_intake, masked=masked is not None
        )  # fmt: skip
        records = self._learned(self.signing.begin(recent))
        self._unmasking = self._asked_before(asked)
        self.earlier.restore(records if self._unmasking is None else chain(records, [self._unmasking.saved.record]))
        self.signing.advance(params, version)
        self.standing = self.earlier.standing
        self.reception = Reception(
            self.topics, self._codec, strategy, earlier=self.earlier, presence=self.presence, admission=self.admission,
            signing=self.signing, tells=manifest.keeps_own,
        )  # fmt: skip
        self.sweeper = Sweeper(self.topics.any_update)
        self.readiness = Readiness(
            config, self.presence, self.clock, self.topics.any_status, loss=manifest.plan.loss
        )  # fmt: skip
        self._announced_wait = False  # the retained round says that none is open
        self._waits = opens.Waits()
        self.gate = Gate(gate or GateSettings())
        self.jury = Jury(self.gate.settings, self.topics, self._is_canary)
        self._closing: Closing | None = None
        self._orders: deque[Rollback] = deque()  # not carried out yet
        self._next_settings: Reconfigured | None = None  # from the next round on
        self._out: list[Action] = []  # of the step that is being made

    def _asked_before(self, asked: SavedAsk | None) -> Unmasking | None:
        """What an earlier process has asked the helpers for, if that is still to come and of this model: it is asked
        again. Rounds before it that were passed over have no record. Its devices have taken part in any case: a helper
        may have opened the sum that this process can't use, since the newest model was damaged."""
        if self.masked is None or asked is None:
            return None
        self.resting.learn(asked.record)
        if asked.record.round < self.round or asked.record.base != self.version:
            return None
        self.phase, self.round = "unmasking", asked.record.round
        return self._unmask(asked)

    def _unmask(self, saved: SavedAsk) -> Unmasking:
        assert self.masked is not None
        return Unmasking(saved, self.topics, hash=self.announcer.hash, patience_s=self.masked.settings.helper_s)

    def _adopt_settings(self) -> None:
        """Go by what the operator has changed, between two rounds. What the settings of a start have sized stays: late
        updates, the strategy and admission."""
        if self._next_settings is None or self.phase != "waiting":
            return
        (rounds, gate), self._next_settings = (self._next_settings.rounds, self._next_settings.gate), None
        self.config = rounds
        self.presence.reconfigure(only_fresh=rounds.only_new_data, expect=rounds.expect)
        self.readiness.reconfigure(rounds)
        self.pace.updates_per_s = rounds.updates_per_s
        self.earlier.config = rounds
        self.gate.settings = gate
        self.jury.reconfigure(gate)

    def _learned(self, recent: Iterable[RoundRecord]) -> Iterator[RoundRecord]:
        """The records, of which admission has learned on their way."""
        for record in recent:
            self.admission.influence.learn(record)
            self.resting.learn(record)
            if self.masked is not None:
                self.masked.recall(record)
            self.profiles.learn(record, self.params)
            if self.selection is not None:
                self.selection.learn(record)
            if self.roll is not None:
                self.roll.learn(record)
            self._answered.learn(record)
            yield record

    @property
    def late(self) -> int:
        """Parts of updates that came for rounds that are not open."""
        return self.reception.late

    @property
    def dropped(self) -> Counter[str]:
        """Messages that violated the protocol, by sender."""
        return self.reception.receipts.dropped

    def snapshot(self) -> Snapshot:
        """The coordinator's state, for its host and for operators."""
        shot = Snapshot(
            self.phase, self.round, self.version, self.fence.attempt, self.fence.held, self.presence.count,
            barred=self.admission.barred,
        )  # fmt: skip
        tally = self.tally
        if self.phase == "waiting":
            shot = replace(shot, opens_at=self.readiness.opens_at)
        if tally is None:
            return shot
        return replace(
            shot, counted=tally.num_counted, waiting=tally.num_waiting, queued=tally.intake.waiting,
            bytes_up=tally.bytes_up, closes_at=tally.closes_at if self.phase == "open" else None,
            skipped=tally.opening.skipped, deadlines=tally.deadlines,
        )  # fmt: skip

    @property
    def wake_at(self) -> float | None:
        """When a Tick is wanted."""
        if not self.fence.held:
            return self.fence.ask_at
        shown_at = None if self.bulletin is None else self.bulletin.due_at
        wakes = (self._wake_at, self.signing.reissue_at, shown_at, self._settled_at if self._removals else None)
        found = [at for at in wakes if at is not None]
        return min(found) if found else None

    @property
    def _wake_at(self) -> float | None:
        """When the rounds want a Tick."""
        if self.phase == "waiting":
            opens = self.readiness.wake_at if self._inquiry is None else self._inquiry.wake_at
            opens = opens if self._in_vain.until is None else self._in_vain.until
            times = (opens, self.reception.wake_at(None))
            return min((at for at in times if at is not None), default=None)
        if self.phase == "judging":
            return self.jury.wake_at
        if self.phase == "unmasking" and self._unmasking is not None:
            return self._unmasking.wake_at
        if self.phase != "open" or self.tally is None:
            return None
        quiet = self.reception.wake_at(self.tally)
        ends_at = self.tally.patient_until if self._is_enough(self.tally) else self.tally.closes_at
        return ends_at if quiet is None else min(ends_at, quiet)

    def _is_canary(self, device: str) -> bool:
        member = self.signing.member(device)
        return member is not None and member.canary

    def _is_enough(self, tally: Tally) -> bool:
        return tally.reports >= self._config_of(tally).min_reports

    def _config_of(self, tally: Tally) -> RoundSettings:
        """The settings that this round goes by."""
        return self.config if tally.gathering is None else self.profiles.rounds(self.config, tally.gathering)

    def _publish_round(self, now: float) -> Publish:
        states: dict[Phase, RoundState] = {"done": "done", "waiting": "waiting"}
        state = states.get(self.phase, "open")
        unearned = self.standing.unearned(self.round, self.presence.present()) if state == "waiting" else ()
        message = self._round(state, unearned)
        if (accuracy := self._accuracy()) is not None:
            message = msgspec.structs.replace(message, accuracy=accuracy)
        return self.announcer.publish_round(self.signing.stamp(message, self.clock.at(now), now))

    def _accuracy(self) -> float | None:
        """What the newest version is worth on the test set, if the fleet is watched and its round is among the last."""
        past = () if self.roll is None else self.roll.past
        made = (round for round in past if round.state in MOVED and round.version == self.version)
        return next((round.accuracy for round in made), None)

    def _round(self, state: RoundState, unearned: Sequence[str] = ()) -> Round:
        return self.announcer.round(
            self.tally if state == "open" else None, state, round=self.round, version=self.version,
            attempt=self.fence.attempt, config=self.config, unearned=unearned,
        )  # fmt: skip

    def _max_payload(self, mode: Mode) -> int:
        """The longest update of a round that is not masked, and does not only evaluate."""
        return self._codec.bound(self._update_size) if mode == "train" else self.profiles.max_payload

    def _make_intake(self, round: int, version: int, unasked: int = 1, mode: Mode | None = None) -> RoundIntake:
        """`mode` is the round's, where its number alone does not say it."""
        mode = mode or self.config.mode_of(round)
        max_payload = 0
        if mode != "evaluate":
            max_payload = self._max_payload(mode) if self.masked is None else self.masked.max_payload(mode)
        return RoundIntake(
            self._codec, max_payload, federation=self.announcer.hash, round=round, version=version, unasked=unasked
        )  # fmt: skip
