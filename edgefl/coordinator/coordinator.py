"""RoundCoordinator: the rounds of one federation, decided without any I/O.

Promises kept here: a round ends at its goal, when every device that it waits for has reported, when its patience ends,
or at its deadline, and never waits for all (standing.py, opening.py); a device counts once a round; the model changes
only by a commit, and is announced only after the host has made that commit durable; messages of another round, model or
plan change nothing; nothing is announced or committed unless the federation is ours (fence.py).

All that it knows is in state.py. How rounds open, close and are committed is in rounds.py.
"""

from __future__ import annotations

from ..errors import ProtocolError
from ..machine import Connected, Disconnected, Flow, Received, Sent, Stop, Tick, WallTime, assert_never
from ..protocol.messages import Status, decode
from .events import (
    Action,
    AskProfile,
    Evaluated,
    Event,
    Forget,
    FromHost,
    HelpersRead,
    Pause,
    Reconfigured,
    Release,
    ReloadedLate,
    ReloadLate,
    Resume,
    Rollback,
    RosterRead,
    SignerRead,
)
from .rounds import Rounds
from .signing import Signing
from .viewers.bulletin import SETTLE_S


class RoundCoordinator(Rounds):
    """All rounds of one federation: events in, actions out. Hosts read `snapshot`."""

    def step(self, event: Event, now: float) -> list[Action]:
        """Process one event; returns what the host has to do, in order."""
        self.clock.hear(event, now)
        if not self.fence.lost:
            self._process(event, now)
            if self.admission.pending:
                self._bar_pending()
                self._maybe_close(now)
            self._on_jury(None, now)
            self._carry_out_order(now)
            self._carry_out_removals(now)
            self._watch(event, now)
        out, self._out = self._out, []
        return self.signing.sealed(out)

    def _process(self, event: Event, now: float) -> None:
        match event:
            case Received():
                self._on_message(event, now)
            case Connected():
                self.announcer.fit(self.announcer.manifest, event.max_packet_bytes)
                self._out += self.announcer.subscribe(answers=self.masked is not None)
                self.sweeper.connected()
                self._out += self.fence.connected(now)  # statuses come before the answer: the next round asks all
            case Disconnected():
                self.fence.disconnected()
            case Tick() | WallTime():
                self._tick(now)
            case Pause() | Resume() | Forget():
                self._on_order(event, now)
                self._maybe_close(now)
                self._maybe_open(now)
            case (
                Evaluated() | ReloadedLate() | Rollback() | Release() | AskProfile() | RosterRead() | SignerRead()
                | HelpersRead() | Reconfigured()
            ):  # fmt: skip
                self._on_host(event, now)
            case Sent():
                self._on_sent(event)
            case Flow():
                pass  # the aggregator is beside the broker
            case Stop():
                self._show_last("stopped", now)
                self._out += self.fence.release()
            case _:
                assert_never(event)

    def _on_host(self, event: FromHost, now: float) -> None:
        """The host has an answer, the operator an order, or the root has certified something."""
        match event:
            case Evaluated():
                self._on_evaluated(event, now)
            case ReloadedLate():
                self._on_reloaded(event, now)
            case Rollback():
                self._orders.append(event)
            case Release():
                self._release(event)
                self._maybe_open(now)
            case AskProfile():
                self._on_profile_order(event)
            case RosterRead() | SignerRead():
                self._on_keys(event, now)
            case HelpersRead():
                if self.masked is not None:
                    self.masked.adopt(event.parties, event.certificates)
                    self._maybe_open(now)
            case Reconfigured():
                self._next_settings = event
                self._maybe_open(now)
            case _:
                assert_never(event)

    def _tick(self, now: float) -> None:
        if not self.fence.held:  # a round whose deadline passes meanwhile waits: it might be another's by now
            if self.fence.ask_at is not None and now >= self.fence.ask_at:
                self._out += self.fence.ask_again(now)
            return
        if self.signing.reissue_at is not None and now >= self.signing.reissue_at:
            self._reissue(now)
        self._let_in(now)
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
        elif self.phase == "judging":
            self._on_jury(self._look_at_jury(now), now)
        elif self.phase == "unmasking":
            self._on_sum(self._look_at_answers(now), now)

    def _on_sent(self, event: Sent) -> None:
        clears = [*self.announcer.on_sent(event.token, event.ok), *self.sweeper.on_sent(event.token, event.ok)]
        if self.fence.held or self.phase == "done":  # else the federation may be another's by now
            self._out += clears

    def _on_claim(self, payload: bytes, now: float) -> None:
        """Once the federation is ours, everything that should be retained is put (back) on the broker."""
        held = self.fence.held
        self._out += self.fence.on_claim(self.signing.read_claim(payload))
        if held or not self.fence.held:
            return
        self.reception.receipts.attempt = self.fence.attempt
        self._settled_at = now + SETTLE_S
        self._out += self.announcer.everything(self.fence.attempt)
        if self.bulletin is not None:
            self._out += self.bulletin.begin(now)
        self._announced_wait, self._inquiry = False, None
        if self.phase == "unmasking" and self.tally is None:
            self._resume_unmasking(now)
        if self.tally is not None:  # reports could not come meanwhile
            self.tally.patient_from = now
        if self.phase != "waiting":
            self._out.append(self._publish_round(now))
        if self.phase == "judging":
            self._show(now)
        if self.phase == "unmasking":
            self._ask_helpers(now, begins=True)
        self._maybe_open(now)
        self._tick(now)
        if self.config.late_window and (self.tally is None or self.tally.mode != "train"):
            self._out.append(ReloadLate())  # a round that trains has asked for them when it opened
        self._out += [*self.announcer.sweep(), *self.sweeper.clear()]

    def _on_reloaded(self, event: ReloadedLate, now: float) -> None:
        if self.phase == "open" and self.tally is not None and self.tally.mode == "train":
            self._out += self.reception.reload(self.tally, event.updates, now)
            self._maybe_close(now)
        else:
            self.reception.learn(event.updates)

    # Keys

    def _reissue(self, now: float) -> None:
        """Announce the round again, before it expires or under another key."""
        self._announced_wait = self.phase == "waiting"
        self._out.append(self._publish_round(now))

    def _on_keys(self, event: RosterRead | SignerRead, now: float) -> None:
        """The root has certified other devices, or another key of ours."""
        if not isinstance(self.signing, Signing):
            return
        if isinstance(event, RosterRead):
            self._on_roster(self.signing, event, now)
            return
        if event.epoch > self.signing.epoch:
            self._doubts = ()  # helpers are asked again
            self._in_vain.over()
        self.signing.signer = event  # what is retained is signed again
        if self.fence.held:
            self._out += [*self.fence.repeat(), self.announcer.publish_manifest()]
            self._reissue(now)
            self._maybe_open(now)

    def _on_roster(self, signing: Signing, event: RosterRead, now: float) -> None:
        """Devices were enrolled or revoked: a revoked one is not heard from now on, neither asked nor waited for."""
        signing.roster = event.roster
        self.unlisted.clear()
        self._in_vain.over()
        for device in [name for name in self.presence.statuses if not signing.is_enrolled(name)]:
            self.presence.drop(device)
            self.reception.drop(self.tally, device)
            if self.tally is not None:
                self.tally.set_present(device, False, False)
        if self.roll is not None and self.bulletin is not None:
            for page in self.roll.enrol(signing.enrolled):
                self.bulletin.hurry(page, now)
        self._out.append(self.announcer.subscribe_statuses())  # of new ones a status may be there already
        self._maybe_close(now)
        self._maybe_open(now)

    # Messages

    def _on_message(self, event: Received, now: float) -> None:
        device = self.topics.device_of(event.topic)
        is_status = device is not None and event.topic == self.topics.status(device)
        try:
            if event.topic == self.topics.aggregator:
                self._on_claim(event.payload, now)
                return
            if self.bulletin is not None and event.topic == self.topics.summary:
                self._out += self.bulletin.hear(event.payload) if self.fence.held else []
                return
            if self.masked is not None and self.topics.answer_part(event.topic) is not None:
                self._on_sum(self._on_answer(event, now), now)
                self._maybe_open(now)
                return
            if event.payload and (not is_status or (device is not None and self.signing.is_revoked(device))):
                self._sweep(event)  # without a payload, a topic was cleared
            if device is None or self.admission.admits(device, len(event.payload), now, is_status=is_status):
                if is_status or device not in self.presence.paused:
                    self._on_device(device if is_status else None, event, now)
                if self.roll is not None and device is not None:
                    self.roll.heard(device, now, retained=event.retained)
        except ProtocolError as error:
            self._out.append(self.reception.receipts.drop(device, event.topic, error))
            if device is not None:
                self.admission.blame(device, error, now)

    def _on_device(self, status_of: str | None, event: Received, now: float) -> None:
        if status_of is not None:
            self._on_status(status_of, event.payload, now)
        elif event.payload:
            self._on_update(event, now)

    def _sweep(self, event: Received) -> None:
        """Nothing should be retained where this message came from."""
        if event.retained:
            self._out += self.sweeper.see(event.topic)
            self._out += self.sweeper.clear() if self.fence.held else []

    def _on_update(self, event: Received, now: float) -> None:
        device = self.topics.device_of(event.topic)
        if device is not None and event.payload.startswith(b"{"):
            self._on_jury(self._on_verdict(device, event, now), now)
            return
        gone = device is not None and not self.presence.is_present(device)
        try:
            self._receive(device, event, now)
        finally:
            if device is not None and gone and self.presence.is_present(device):  # whatever its update is worth
                self._on_presence(device, True, now)

    def _receive(self, device: str | None, event: Received, now: float) -> None:
        if self.phase == "waiting" and self.fence.held:
            self._out += self.reception.between(event, now, round=self.round)
            return
        tally = self.tally if self._receives(device) and self.fence.held else None
        self._out += self.reception.receive(tally, event, now)
        self._maybe_close(now)

    def _receives(self, device: str | None) -> bool:
        """Whether the round takes updates; one whose sum is being opened only says again that an update has counted."""
        if self.phase == "unmasking" and self.tally is not None and device is not None:
            return self.tally.counted_in(device) is not None
        return self.phase == "open"

    def _on_status(self, device: str, payload: bytes, now: float) -> None:
        known = device in self.presence.statuses
        if not payload:
            self.presence.drop(device)
        elif not self.presence.update(device, decode(Status, payload)):
            return
        self._on_presence(device, known, now)

    def _on_presence(self, device: str, known: bool, now: float) -> None:
        """What is known of the device's presence has changed; `known`: it had a status before."""
        self._out += self.readiness.absence.heard(device, known, now)
        if self.tally is not None:
            asked = self.tally.is_waiting_for(device)
            there = self.presence.is_present(device) if asked else self.presence.can_be_asked(device)
            self.tally.set_present(device, there, self.standing.is_worth(device))
        self._maybe_open(now)
        self._maybe_close(now)
        if self.phase == "judging":
            self._on_jury(self._look_at_jury(now), now)
