"""RoundCoordinator: the rounds of one federation, decided without any I/O.

    waiting -> open -> evaluating -> (commit) -> waiting or open -> ... -> done
                 └── too few reports at the last deadline: abandoned, the model stays as it is

Promises kept here: a round ends at its goal, when every device that it waits for has reported, when its patience ends,
or at its deadline, and never waits for all (standing.py, opening.py); a device counts once a round; the model changes
only by a commit, and is announced only after the host has made that commit durable; messages of another round, model or
plan change nothing; nothing is announced or committed unless the federation is ours (fence.py).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import msgspec
import numpy as np

from ..errors import ProtocolError
from ..history import RoundRecord
from ..machine import (
    Connected,
    Disconnected,
    Flow,
    Note,
    Publish,
    Received,
    Sent,
    Stop,
    Tick,
    WallClock,
    WallTime,
    assert_never,
)
from ..protocol.messages import Manifest, Status, decode
from ..protocol.topics import ROOT
from ..settings import RoundSettings
from ..strategies import Strategy
from . import cohort
from . import opening as opens
from .announcer import Announcer, RoundState
from .closing import at_deadline, conclude
from .earlier_rounds import EarlierRounds
from .events import Action, Commit, Evaluate, Evaluated, Event, Finished, ReloadedLate, ReloadLate
from .fence import Fence
from .intake import RoundIntake
from .pace import Pace
from .presence import Presence
from .readiness import Readiness
from .reception import Reception
from .snapshot import Phase, Snapshot
from .sweeper import Sweeper
from .tally import Tally


class RoundCoordinator:
    """All rounds of one federation. `round` is the open round, or the one that comes next; `version` counts commits,
    `attempt` starts of the aggregator. Hosts read `snapshot`."""

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
    ) -> None:
        cohort.check(config)
        config.check_evaluation(manifest.holdout)
        self.config, self.strategy = config, strategy
        self.params, self.round, self.version = params, round, version
        self.phase: Phase = "waiting"
        self.presence = Presence(only_fresh=config.only_new_data, expect=config.expect)
        self.announcer = Announcer(manifest, params, version, attempt=attempt, root=root)
        self.topics = self.announcer.topics
        self.tally: Tally | None = None
        self.pace = Pace(update_s, config.updates_per_s)
        self.fence = Fence(self.topics.aggregator, manifest.run, attempt, instance, take_over)
        self._rng = rng
        self._codec = manifest.update_codec
        self.earlier = EarlierRounds(config, self._codec, len(params), self._make_intake)
        self.earlier.restore(recent)
        self.standing = self.earlier.standing
        self.reception = Reception(self.topics, self._codec, strategy, self.earlier, self.presence)
        self.sweeper = Sweeper(self.topics.any_update)
        self.clock = WallClock()
        self.readiness = Readiness(config, self.presence, self.clock, self.topics.any_status)
        self._announced_wait = False  # the retained round says that none is open
        self._waits = opens.Waits()
        self._closing: tuple[np.ndarray, RoundRecord] | None = None
        self._out: list[Action] = []  # of the step that is being made

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
            self.phase, self.round, self.version, self.fence.attempt, self.fence.held, self.presence.count
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
        if self.phase == "waiting":
            times = (self.readiness.wake_at, self.reception.wake_at(None))
            return min((at for at in times if at is not None), default=None)
        if self.phase != "open" or self.tally is None:
            return None
        quiet = self.reception.wake_at(self.tally)
        ends_at = self.tally.patient_until if self._is_enough(self.tally) else self.tally.closes_at
        return ends_at if quiet is None else min(ends_at, quiet)

    def step(self, event: Event, now: float) -> list[Action]:
        """Process one event; returns what the host has to do, in order."""
        self.clock.hear(event, now)
        if not self.fence.lost:
            self._process(event, now)
        out, self._out = self._out, []
        return out

    def _process(self, event: Event, now: float) -> None:
        match event:
            case Received():
                self._on_message(event, now)
            case Connected():
                self.announcer.fit(self.announcer.manifest, event.max_packet_bytes)
                self._out += self.announcer.subscribe()
                self.sweeper.connected()
                self._out += self.fence.connected(now)  # statuses come before the answer: the next round asks all
            case Disconnected():
                self.fence.disconnected()
            case Tick() | WallTime():
                self._tick(now)
            case Evaluated():
                self._commit(event, now)
            case ReloadedLate():
                self._on_reloaded(event, now)
            case Sent():
                self._on_sent(event)
            case Flow():
                pass  # the aggregator is beside the broker
            case Stop():
                self._out += self.fence.release()
            case _:
                assert_never(event)

    # Announcing

    def _on_sent(self, event: Sent) -> None:
        clears = [*self.announcer.on_sent(event.token, event.ok), *self.sweeper.on_sent(event.token, event.ok)]
        if self.fence.held or self.phase == "done":  # else the federation may be another's by now
            self._out += clears

    def _on_claim(self, payload: bytes, now: float) -> None:
        """Once the federation is ours, everything that should be retained is put (back) on the broker."""
        held = self.fence.held
        self._out += self.fence.on_claim(payload)
        if held or not self.fence.held:
            return
        self.reception.receipts.attempt = self.fence.attempt
        self._out += self.announcer.everything(self.fence.attempt)
        self._announced_wait = False
        if self.tally is not None:  # reports could not come meanwhile
            self.tally.patient_from = now
        if self.phase != "waiting":
            self._out.append(self._publish_round())
        self._maybe_open(now)
        self._tick(now)
        if self.config.late_window and (self.tally is None or self.tally.mode != "train"):
            self._out.append(ReloadLate())  # a round that trains has asked for them when it opened
        self._out += [*self.announcer.sweep(), *self.sweeper.clear()]

    def _publish_round(self) -> Publish:
        states: dict[Phase, RoundState] = {"done": "done", "waiting": "waiting"}
        state = states.get(self.phase, "open")
        unearned = self.standing.unearned(self.round, self.presence.present()) if state == "waiting" else ()
        return self.announcer.publish_round(
            self.tally if state == "open" else None, state, round=self.round, version=self.version,
            attempt=self.fence.attempt, config=self.config, unearned=unearned,
        )  # fmt: skip

    # Opening and closing

    def _maybe_open(self, now: float) -> None:
        """Open the next round if enough devices are there; finish if there is no next round."""
        if self.phase != "waiting" or not self.fence.held:
            return
        if self.config.rounds is not None and self.round > self.config.rounds:
            self._finish(f"{self.config.rounds} rounds are done")
            return
        look = self.readiness.look(now, first=self.version == 0 and self.tally is None)
        self._out += look.notes
        if look.may_open:
            self._open(self.presence.present(), now)
            return
        if look.tell and not self._announced_wait:
            self._announced_wait = True
            self._out.append(self._publish_round())
        if look.ask:
            self._out.append(self.announcer.publish_manifest())

    def _open(self, present: list[str], now: float) -> None:
        config, mode = self.config, self.config.mode_of(self.round)
        run = self.announcer.manifest.run
        opening = opens.plan(config, self.standing, run=run, round=self.round, present=present, rng=self._rng)
        pacing = self.pace.plan(len(opening.asked), len(present), opening.deadline_s)
        self.tally = Tally(
            opening, round=self.round, version=self.version, mode=mode, opened_at=now, pacing=pacing,
            intake=self._make_intake(self.round, self.version, pacing.unasked), any_round=config.mode == "async",
            resumed=self.tally is None and self.fence.attempt > 1,
        )  # fmt: skip
        self.phase, self._announced_wait = "open", False
        self.readiness.opened(now)
        if mode == "train":
            self.strategy.start(self.params, self.round)
        text = f"round {self.round} open: {len(opening.asked)} of {len(present)} devices asked"
        self._out.append(Note("info", text))
        self._out += self._waits.note(self.round, opening)
        self._out.append(self._publish_round())
        self._out += self.reception.ask_held(self.tally)
        self._out += self.fence.look_again()
        if mode == "train" and config.late_window:
            self._out.append(ReloadLate())

    def _on_reloaded(self, event: ReloadedLate, now: float) -> None:
        if self.phase == "open" and self.tally is not None and self.tally.mode == "train":
            self._out += self.reception.reload(self.tally, event.updates)
            self._maybe_close(now)
        else:
            self.reception.learn(event.updates)

    def _make_intake(self, round: int, version: int, unasked: int = 1) -> RoundIntake:
        max_payload = self._codec.bound(len(self.params)) if self.config.mode_of(round) == "train" else 0
        return RoundIntake(
            self._codec, max_payload, federation=self.announcer.hash, round=round, version=version, unasked=unasked
        )  # fmt: skip

    def _tick(self, now: float) -> None:
        if not self.fence.held:  # a round whose deadline passes meanwhile waits: it might be another's by now
            if self.fence.ask_at is not None and now >= self.fence.ask_at:
                self._out += self.fence.ask_again(now)
            return
        if self.phase == "waiting":
            self._out += self.reception.ask(None, now)
            self._maybe_open(now)
        elif self.phase == "open" and self.tally is not None:
            over = now >= self.tally.closes_at
            if not over or self.config.late_window:
                self._out += self.reception.ask(self.tally, now)
            if over:
                self._on_deadline(self.tally, now)
            else:
                self._maybe_close(now)

    def _is_enough(self, tally: Tally) -> bool:
        return tally.reports >= self.config.min_reports

    def _maybe_close(self, now: float) -> None:
        """Close before the deadline: at the goal, when the round waits for no device any more, or has no patience."""
        tally = self.tally
        if self.phase != "open" or tally is None or not self.fence.held or not self._is_enough(tally):
            return
        if tally.complete or now >= tally.patient_until:
            self._close(tally, now)

    def _on_deadline(self, tally: Tally, now: float) -> None:
        """Close; or go on with the same round, if devices at work can bring what it lacks."""
        at_work = at_deadline(tally, self.standing, self.presence.present(), deadline_s=self.config.deadline_s, now=now)
        enough = self._is_enough(tally)
        if enough or tally.reports + len(at_work) < self.config.min_reports:
            self._close(tally, now)
        else:
            tally.extend(now, self.config.deadline_s)
            self._out += [tally.goes_on(self.config.min_reports, at_work), self._publish_round()]
        if not enough and self.phase != "done":
            # A full queue may have dropped the round, or a status: devices that are there answer with theirs.
            self._out.append(self.announcer.publish_manifest())

    def _close(self, tally: Tally, now: float) -> None:
        record = tally.record(len(self.params), self.config.min_reports, now)
        record = msgspec.structs.replace(record, attempt=self.fence.attempt)
        if record.state == "abandoned":
            why = self.readiness.absence.why(tally, self.config.min_reports, now)
            record = msgspec.structs.replace(record, why=why)
        params, record, notes = conclude(tally, self.strategy, record)
        self._out += notes
        missed = self.earlier.close(tally, abandoned=record.state == "abandoned")
        record = msgspec.structs.replace(record, missed=missed)
        if params is None:
            self._next(tally, record, None, now)
        else:
            self.phase, self._closing = "evaluating", (params, record)
            self._out.append(Evaluate(params))

    def _commit(self, result: Evaluated, now: float) -> None:
        assert self._closing is not None and self.tally is not None
        (params, record), self._closing = self._closing, None
        if result.update_s is not None:
            self.pace.learn(result.update_s)
        record = msgspec.structs.replace(
            record, loss=result.loss, accuracy=result.accuracy, seconds=now - self.tally.opened_at
        )
        self._next(self.tally, record, params, now)

    def _next(self, tally: Tally, record: RoundRecord, params: np.ndarray | None, now: float) -> None:
        """Commit, announce, and go on."""
        state = {} if params is None else self.strategy.state()
        record = msgspec.structs.replace(
            record, closed_at=round(self.clock.at(now) or 0), budgets=self.presence.budgets()
        )
        drop = tally.late_to_drop(committed=params is not None)
        self.reception.late_table.drop(drop)
        self._out.append(Commit(record, params, drop, state))
        superfluous: list[Action] = []
        self.phase, self.round = "waiting", self.round + 1
        if params is not None:
            self.params, self.version = params, record.version
            added, superfluous = self.announcer.advance(params, self.version)
            self._out += added
        target = self.config.target_accuracy
        if target is not None and (record.accuracy or 0.0) >= target:
            self._finish(f"accuracy {record.accuracy:.4f} has reached the target {target:g}")
        else:
            self._maybe_open(now)
        self._out += superfluous  # after the round that needs them no more

    def _finish(self, reason: str) -> None:
        self.phase, self.tally = "done", None
        self._out.append(self._publish_round())
        self._out += self.fence.release()
        self._out.append(Finished(reason))

    # Messages

    def _on_message(self, event: Received, now: float) -> None:
        device = self.topics.device_of(event.topic)
        try:
            if event.topic == self.topics.aggregator:
                self._on_claim(event.payload, now)
            elif device is not None and event.topic == self.topics.status(device):
                self._on_status(device, event.payload, now)
            elif event.payload:  # else a topic was cleared
                self._sweep(event)
                self._on_update(event, now)
        except ProtocolError as error:
            self._out.append(self.reception.receipts.drop(device, event.topic, error))

    def _sweep(self, event: Received) -> None:
        """Nothing should be retained where this message came from."""
        if event.retained:
            self._out += self.sweeper.see(event.topic)
            self._out += self.sweeper.clear() if self.fence.held else []

    def _on_update(self, event: Received, now: float) -> None:
        if self.phase == "waiting" and self.fence.held:
            self._out += self.reception.between(event, now, round=self.round)
            return
        tally = self.tally if self.phase == "open" and self.fence.held else None
        self._out += self.reception.receive(tally, event, now)
        self._maybe_close(now)

    def _on_status(self, device: str, payload: bytes, now: float) -> None:
        known = device in self.presence.statuses
        if not payload:
            self.presence.drop(device)
        elif not self.presence.update(device, decode(Status, payload)):
            return
        self._out += self.readiness.absence.heard(device, known, now)
        if self.tally is not None:
            asked = self.tally.is_waiting_for(device)
            there = self.presence.is_present(device) if asked else self.presence.can_be_asked(device)
            self.tally.set_present(device, there, self.standing.is_worth(device))
        self._maybe_open(now)
        self._maybe_close(now)
