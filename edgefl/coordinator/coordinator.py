"""RoundCoordinator: the rounds of one federation, decided without any I/O.

    waiting -> open -> evaluating -> (commit) -> waiting or open -> ... -> done
                 └── too few reports at the deadline: abandoned, the model stays as it is

Promises kept here: a round ends at its goal, when everybody who is there has reported, or at its deadline, and
never waits for all; a device counts once a round; the model changes only by a commit, and is announced only after
the host has made that commit durable; what is not of this round, model and plan changes nothing; nothing is announced
or committed unless the federation is ours (fence.py).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from ..errors import ProtocolError
from ..history import RoundRecord
from ..machine import Connected, Disconnected, Note, Publish, Received, Sent, Stop, Tick, assert_never
from ..protocol.messages import Manifest, Round, Status, decode, encode
from ..settings import RoundConfig
from ..strategies import Strategy
from . import cohort
from .announcer import Announcer
from .closed_rounds import ClosedRounds
from .events import Action, Commit, Evaluate, Evaluated, Event, Finished, Recalled, RecallLate
from .fence import Fence
from .intake import RoundIntake
from .pace import Pace
from .presence import Presence
from .reception import Reception
from .tally import Tally


class RoundCoordinator:
    """All rounds of one federation. `round` is the one that comes next, `version` counts commits, `attempt` starts."""

    def __init__(
        self,
        manifest: Manifest,
        config: RoundConfig,
        strategy: Strategy,
        params: np.ndarray,
        *,
        rng: random.Random,
        round: int = 1,
        version: int = 0,
        attempt: int = 1,
        recent: Sequence[RoundRecord] = (),
        update_s: float = 0.0,
        instance: int = 0,
        take_over: bool = False,
    ) -> None:
        cohort.check(config)
        config.check_evaluation(manifest.holdout)
        self.config, self.strategy = config, strategy
        self.params, self.round, self.version = params, round, version
        self.phase: Literal["waiting", "open", "evaluating", "done"] = "waiting"
        self.presence = Presence()
        self.announcer = Announcer(manifest, params, version)
        self.topics = self.announcer.topics
        self.tally: Tally | None = None
        self.pace = Pace(update_s, config.updates_per_s)
        self.fence = Fence(self.topics.aggregator, manifest.run, attempt, instance, take_over)
        self._rng = rng
        self._codec = manifest.make_codec()
        self._closed = ClosedRounds(config.window)
        self._closed.recall((r for r in recent if config.mode_of(r.round) == "train"), self._make_intake)
        self.reception = Reception(self.topics, self._codec, strategy, self._closed, self.presence, attempt)
        self.dropped = self.reception.dropped
        self._give_up_waiting_at: float | None = None
        self._closing: tuple[np.ndarray, RoundRecord] | None = None

    @property
    def late(self) -> int:
        """Parts of updates that came for rounds that are not open."""
        return self.reception.late

    @property
    def wake_at(self) -> float | None:
        """When a Tick is wanted."""
        if not self.fence.held:
            return self.fence.ask_at
        if self.phase == "waiting":
            times = (self._give_up_waiting_at, self.presence.ask_at)
            return min((at for at in times if at is not None), default=None)
        if self.phase != "open" or self.tally is None:
            return None
        deadline = self.tally.opened_at + self.config.deadline_s
        quiet = self.reception.wake_at(self.tally)
        return deadline if quiet is None else min(deadline, quiet)

    def step(self, event: Event, now: float) -> list[Action]:
        """Take one event in; what the host has to do, in order."""
        if self.fence.lost:
            return []
        match event:
            case Received():
                return self._received(event, now)
            case Connected():
                self.announcer.fit(self.announcer.manifest, event.max_packet_bytes)
                # Who is there comes before the answer to our claim, so that the next round asks them all.
                return [*self.announcer.subscribe(), *self.fence.connected(now)]
            case Disconnected():
                self.fence.disconnected()
                return []
            case Tick():
                return self._tick(now)
            case Evaluated():
                return self._commit(event, now)
            case Recalled():
                return self._recalled(event, now)
            case Sent():
                sweep = self.announcer.sweeper.on_sent(event.token, event.ok)
                return sweep if self.fence.held or self.phase == "done" else []  # else it may be another's by now
            case Stop():
                return self.fence.release()
            case _:
                assert_never(event)

    def _on_claim(self, payload: bytes, now: float) -> list[Action]:
        """Who has the federation; as soon as it is us, everything that is retained is put (back) on the broker."""
        held = self.fence.held
        out = self.fence.on_claim(payload)
        if held or not self.fence.held:
            return out
        self.reception.attempt = self.fence.attempt
        return [*out, *self._announce(), *self._maybe_open(now), *self._tick(now)]

    def _announce(self) -> list[Action]:
        out = self.announcer.everything()
        if self.phase != "waiting":
            out.append(self._publish_round())
        return out + self.announcer.sweep()

    def _publish_round(self) -> Publish:
        announcer, mode = self.announcer, self.tally.mode if self.tally else "train"
        message = Round(
            manifest=announcer.manifest_id,
            state="done" if self.phase == "done" else "open",
            round=self.round,
            attempt=self.fence.attempt,
            version=self.version,
            model_sha256=announcer.downlink.sha256,
            frames=announcer.downlink.frames,
            deadline_s=self.config.deadline_s,
            cohort=self.tally.cohort.message if self.tally else None,
            late_rounds=self.config.window if mode == "train" else 0,
            mode=mode,
            **(self.tally.pace if self.tally else {}),
        )
        return Publish(self.topics.round, encode(message), retain=True)

    # Opening and closing

    def _maybe_open(self, now: float) -> list[Action]:
        """Open the next round if enough devices are there; finish if there is none."""
        if self.phase != "waiting" or not self.fence.held:
            return []
        if self.config.rounds is not None and self.round > self.config.rounds:
            return self._finish(f"{self.config.rounds} rounds are done")
        present = self.presence.count
        if present < max(1, self.config.min_reports):
            self._give_up_waiting_at = None
            return [self.announcer.publish_manifest()] if self.presence.ask_again(now) else []
        self.presence.ask_at = None
        if present < self.config.expect and self.version == 0 and self.tally is None:
            if self._give_up_waiting_at is None:
                self._give_up_waiting_at = now + self.config.deadline_s
            if now < self._give_up_waiting_at:
                return []
        return self._open(self.presence.present(), now)

    def _open(self, present: list[str], now: float) -> list[Action]:
        invited = cohort.gather(self.config, self.announcer.manifest.run, self.round, present, self._rng)
        asked = [device for device in present if invited.asks(device)]
        waiting = {device: device for device in self.presence.worth_waiting(asked)}
        goal = cohort.goal_of(self.config, len(present))
        pace = self.pace.announce(len(asked), len(present), self.config.deadline_s)
        intake, mode = self._make_intake(self.round, self.version, pace["unasked"]), self.config.mode_of(self.round)
        any_round = self.config.mode == "async"
        self.tally = Tally(self.round, self.version, now, intake, invited, goal, waiting, any_round, mode, pace)
        self.phase = "open"
        if mode == "train":
            self.strategy.start(self.params, self.round)
        note = Note("info", f"round {self.round} open: {len(asked)} of {len(present)} devices asked")
        recall = [RecallLate()] if mode == "train" and self.config.window else []
        return [note, self._publish_round(), *self.fence.look_again(), *recall]

    def _recalled(self, event: Recalled, now: float) -> list[Action]:
        if self.phase != "open" or self.tally is None or self.tally.mode != "train":
            return []
        return [*self.reception.recall(self.tally, event.updates), *self._maybe_close(now)]

    def _make_intake(self, round: int, version: int, unasked: int = 1) -> RoundIntake:
        max_payload = self._codec.bound(len(self.params)) if self.config.mode_of(round) == "train" else 0
        return RoundIntake(self._codec, max_payload, self.announcer.hash, round, version, unasked)

    def _tick(self, now: float) -> list[Action]:
        if not self.fence.held:  # a round whose deadline passes meanwhile waits: it might be another's by now
            due = self.fence.ask_at is not None and now >= self.fence.ask_at
            return self.fence.ask_again(now) if due else []
        if self.phase == "waiting":
            return self._maybe_open(now)
        tally = self.tally
        if self.phase != "open" or tally is None:
            return []
        over = now >= tally.opened_at + self.config.deadline_s
        asked = [] if over and not self.config.window else self.reception.ask(tally, now)
        return [*asked, *self._close(now)] if over else asked

    def _maybe_close(self, now: float) -> list[Action]:
        """Close before the deadline: the goal is reached, or nobody who could still report is there."""
        tally = self.tally
        if self.phase != "open" or tally is None or not self.fence.held or tally.reports < self.config.min_reports:
            return []
        return self._close(now) if tally.complete else []

    def _close(self, now: float) -> list[Action]:
        tally = self.tally
        assert tally is not None
        if not tally.complete:
            self.presence.count_silence(tally.waiting)
        record, notes = tally.record(len(self.params), self.config.min_reports, now), []
        before = self.strategy.state()
        params = self.strategy.finish() if record.state == "committed" else None
        if params is not None and not np.isfinite(params).all():
            notes = [Note("error", f"round {self.round}: the averaged model is not finite: lower lr or server_lr")]
            record, params = msgspec.structs.replace(record, state="abandoned", version=self.version), None
            self.strategy.restore(before)
            tally.spoilt += tally.folded  # or they would make the next one so
        elif record.state == "abandoned":
            found = f"{tally.reports} of {self.config.min_reports} reports"
            notes = [Note("warning", f"round {self.round} abandoned: {found}")]
        self._closed.close(tally, abandoned=record.state == "abandoned")
        if params is None:
            return [*notes, *self._next(record, None, now)]
        self.phase, self._closing = "evaluating", (params, record)
        return [Evaluate(params)]

    def _commit(self, result: Evaluated, now: float) -> list[Action]:
        assert self._closing is not None and self.tally is not None
        (params, record), self._closing = self._closing, None
        if result.update_s is not None:
            self.pace.learn(result.update_s)
        record = msgspec.structs.replace(
            record, loss=result.loss, accuracy=result.accuracy, seconds=now - self.tally.opened_at
        )
        return self._next(record, params, now)

    def _next(self, record: RoundRecord, params: np.ndarray | None, now: float) -> list[Action]:
        """Commit, announce, and go on."""
        assert self.tally is not None
        state = {} if params is None else self.strategy.state()
        out: list[Action] = [Commit(record, params, self.tally.forget(committed=params is not None), state)]
        gone: list[Action] = []
        self.phase, self.round = "waiting", self.round + 1
        if params is not None:
            self.params, self.version = params, record.version
            added, gone = self.announcer.advance(params, self.version)
            out += added
        target = self.config.target_accuracy
        if target is not None and (record.accuracy or 0.0) >= target:
            out += self._finish(f"accuracy {record.accuracy:.4f} has reached the target {target:g}")
        else:
            out += self._maybe_open(now)
        return out + gone

    def _finish(self, reason: str) -> list[Action]:
        self.phase, self.tally = "done", None
        return [self._publish_round(), *self.fence.release(), Finished(reason)]

    # Messages

    def _received(self, event: Received, now: float) -> list[Action]:
        device = self.topics.device_of(event.topic)
        try:
            if event.topic == self.topics.aggregator:
                return self._on_claim(event.payload, now)
            if device is None:
                raise ProtocolError("nothing is expected there: dropped")
            if event.topic == self.topics.status(device):
                return self._on_status(device, event.payload, now)
            tally = self.tally if self.phase == "open" and self.fence.held else None
            out = self.reception.take(tally, event, now)
            self.presence.hear(device, tally is not None and device in tally.waiting)
            return [*out, *self._maybe_close(now)]
        except ProtocolError as error:
            return [self.reception.drop(device, event.topic, error)]

    def _on_status(self, device: str, payload: bytes, now: float) -> list[Action]:
        if not payload:
            self.presence.forget(device)
        elif not self.presence.show(device, decode(Status, payload)):
            return []
        if self.tally is not None:
            self.tally.see(device, self.presence.is_present(device))
        return [*self._maybe_open(now), *self._maybe_close(now)]
