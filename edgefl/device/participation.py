"""Participation: what a device does for the rounds: fetch the model, train, report, or sit out. No I/O.

It compares what the device is doing with what the newest round asks for, and goes on, stops or begins.
Part of DeviceSession, which reads what arrives and hears what the owner says.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..errors import ProtocolError
from ..machine import Connected, Note, Sent, WallClock
from ..protocol.messages import Manifest, Missing, Receipt, Round
from ..protocol.topics import Topics
from ..protocol.trouble import Trouble
from . import inbound
from .allowance import Allowance
from .budget import Refusal
from .events import Action, Failed, StartTraining, Trained, TrainJob
from .model_fetch import ModelFetch, check_frames
from .patience import Patience
from .reporting import Reporting
from .status import DeviceStatus
from .update_report import UpdateReport
from .work import Terms, Training, Work, goes_on


class Participation:
    """`round` is the newest round, `terms` what the device has agreed to, `work` what it is doing for a round.

    `out` has the actions of the step that is being made, of the session too: they are carried out in their order.
    """

    def __init__(
        self,
        topics: Topics,
        device: str,
        *,
        clock: WallClock,
        status: DeviceStatus,
        allowance: Allowance,
        reporting: Reporting,
        patience: Patience,
        rng: random.Random,
        intern: Callable[[str, bytes], bytes],
    ) -> None:
        self.topics, self.device = topics, device
        self.clock, self.status, self.allowance = clock, status, allowance
        self.terms: Terms | None = None
        self.round: Round | None = None
        self.work: Work | None = None
        self.online = False
        self.link = Connected()
        self.held: dict[str, bytes] = {}  # params by digest: the newest, and the anchor that deltas start from
        self.out: list[Action] = []
        self._reporting, self._saved = reporting, reporting.saved
        self._patience, self._rng, self._intern = patience, rng, intern

    @property
    def wake_at(self) -> float | None:
        """When a Tick is wanted."""
        if not self.online:
            return None
        at = None if self.work is None else self.work.wake_at
        return self.status.ready_at if at is None else at

    @property
    def calm_s(self) -> float:
        """How long a lost connection may stay away: no round waits for a device that has nothing to report."""
        owes = isinstance(self.work, UpdateReport) and not self.work.counted
        return 0.0 if self.round is None or owes else self.round.back_s

    # The connection

    def on_connected(self, now: float) -> None:
        """There is a connection: the work goes on over it."""
        self.publish_status()
        if self.work is not None:
            self.out += self.work.on_connected(now)

    def on_disconnected(self) -> None:
        """The connection is lost: what the work had sent or asked for may be too."""
        self.online = False
        if self.work is not None:
            self.work.on_disconnected()

    def on_tick(self, now: float) -> None:
        """Time has passed: the work goes on, or a pause of the device's own is over."""
        knows_time = self.status.sits_out and self.status.ready_at is None and self.clock.offset is not None
        if not knows_time and (self.wake_at is None or now < self.wake_at):
            return
        if self.work is not None and self.work.wake_at is not None:
            if not self._stops(self.work, now):
                self.out += self.work.on_tick(now)
        else:
            self.status.retry()
            self.consider(now)
            self.publish_status()

    def publish_status(self, state: str = "") -> None:
        """Publish the status if it has changed and the device is connected."""
        news_count = self.round is not None and self.round.only_new_data
        self.status.fresh = self._saved.is_fresh or not news_count
        if self.online:
            self.out += self.status.publish(state or ("training" if isinstance(self.work, Training) else "ready"))

    # The round

    def consider(self, now: float) -> None:
        """Compare what the device does with what the newest round asks for, and do that."""
        round, terms, work = self.round, self.terms, self.work
        if round is None or terms is None:
            return
        if not self._is_sound(round, terms.manifest):
            self.stop_work()
            self.publish_status()
            return
        if round.state == "open" and not (self.status.gave_up(round) or self.status.sits_out):
            self.status.recover()  # when all is done, the reason stays visible
        asked = round.asks(self.device) and (
            not round.only_new_data or self._saved.is_fresh or self._saved.serves(round)
        )
        if work is not None and goes_on(work, self._saved, round, asked):
            self._go_on(work, round, now)
            return
        self.out += self._saved.settle(round)
        late = self._saved.late(round)
        if self.status.is_away_from(round) or not (asked or late or self._prepares(round)):
            self.stop_work()
            self.publish_status()
        elif late or self._saved.serves(round):
            self.stop_work()
            self._report(now)
        else:
            self._take_part(round, terms, now)

    def _prepares(self, round: Round) -> bool:
        """Whether to go on with a fetch while no round is open: rounds that do not wait for this device are short, and
        it would never end."""
        return isinstance(self.work, ModelFetch) and round.state == "waiting" and self.device in round.unearned

    def _is_sound(self, round: Round, manifest: Manifest) -> bool:
        """Whether `round` is of this manifest, and its frames lead to its model."""
        if round.manifest != manifest.id:
            return False
        try:
            check_frames(round, manifest)
        except ProtocolError as error:
            self.out.append(Note("error", str(error)))
            return False
        return True

    def _take_part(self, round: Round, terms: Terms, now: float) -> None:
        """Fetch the model and train it, if the owner's limits allow that."""
        fetch = self._fetch(round, terms, now)
        refusal = self.allowance.plan(round, terms, fetch.payloads if fetch else [], now)
        self.status.max_bytes = self.allowance.max_bytes
        if refusal is not None:
            self.sit_out(refusal, now)
        elif fetch is None:
            self._on_model()
        elif fetch is self.work:
            self.publish_status()
        else:
            self.work = fetch
            self.publish_status()
            self.out += fetch.ask(now)

    def _fetch(self, round: Round, terms: Terms, now: float) -> ModelFetch | None:
        """The fetch of the round's model: the one that is under way, if that leads there, or a new one. None if the
        device has the model. All other work is given up."""
        work, held = self.work, self.held
        is_here = round.frames[-1].digest in held
        if isinstance(work, ModelFetch) and not is_here:
            if work.redirect(round):
                return work
            held = {**held, **work.reached}
        self.stop_work()
        if is_here:
            return None
        fetch = ModelFetch(self.topics, terms.manifest, terms.hash, round, held=held, patience=self._patience, now=now)
        if fetch.params is None:
            return fetch
        self._keep(fetch)  # the last fetch had come that far
        return None

    def _keep(self, fetch: ModelFetch) -> None:
        """The model is whole."""
        self.held = {digest: self._intern(digest, params) for digest, params in fetch.kept.items()}

    def _go_on(self, work: Work, round: Round, now: float) -> None:
        """Continue the work, which serves `round` too."""
        last = work.round
        if not isinstance(work, UpdateReport):
            if last.round == round.round:
                work.follow(round)
            self.publish_status()
            return
        work.follow(round)
        abandoned = work.counted and work.number != round.round
        if abandoned or last.attempt != round.attempt:
            self._report(now)
            return
        again = last.round == round.round  # announced again: parts may be lost
        if self.device in round.unearned:  # no round may have been open when it was sent last
            work.hurry(now)
            again = True
        if self.online and again:
            self.out += work.probe(now)
        self.publish_status()

    def stop_work(self) -> None:
        """Give up what the device is doing; a saved update stays saved."""
        work, self.work = self.work, None
        if work is not None:
            self.out += work.cancel()

    def stop_training(self) -> None:
        """Stop training, and the fetch before it; a report goes on."""
        if not isinstance(self.work, UpdateReport):
            self.stop_work()

    def _give_up(self, round: Round, why: Trouble | None, now: float, *, tries_again: bool) -> None:
        """Sit the round out for a deadline; it may last several."""
        self.work = None
        later_s = self._rng.uniform(0, round.back_s) if round.back_s else 0.0
        self.status.give_up(round, why, now + round.deadline_s + later_s, tries_again=tries_again)

    def _stops(self, work: Work, now: float) -> bool:
        """End `work` if what it would send or fetch again is more than the owner's byte budget has left today."""
        saved, payloads = self._saved.outbox, work.payloads if isinstance(work, ModelFetch) else []
        if isinstance(work, UpdateReport) and saved is not None:
            payloads = [len(saved.blob)]
        assert self.terms is not None
        refusal = self.allowance.stops(self.terms, payloads, now)
        if refusal is not None:
            self.sit_out(refusal, now)
        return refusal is not None

    def sit_out(self, refusal: Refusal, now: float) -> None:
        """Take no part until the owner's limits allow it, and say so."""
        self.stop_work()
        unix_s = self.clock.at(now)
        until = None if refusal.until is None or unix_s is None else now + refusal.until - unix_s
        self.status.sit_out(refusal.why, until)
        self.out.append(Note("info", f"sits out: {refusal.why.text}"))
        self.publish_status()

    # Model and training

    def on_model_part(self, part: inbound.ModelPart, now: float) -> None:
        """A part of a model has arrived; ProtocolError if it is not what belongs there."""
        fetch = self.work
        if not isinstance(fetch, ModelFetch):
            return
        self.out += fetch.on_part(part.topic, part.payload, now)
        if fetch.params is not None:
            self._keep(fetch)
            self._on_model()

    def _on_model(self) -> None:
        """The round's model is here."""
        assert self.round is not None
        if self.round.asks(self.device):
            self._train()
        else:  # no round is open yet
            self.work = None
            self.publish_status()

    def _train(self) -> None:
        assert self.terms is not None and self.round is not None
        params = self.held[self.round.frames[-1].digest]
        job = TrainJob(self.terms.manifest, self.round, params, self._reporting.bytes_down, self.allowance.max_bytes)
        self.work = Training(self.round, job)
        self.publish_status()
        self.out.append(StartTraining(job))

    def on_result(self, event: Trained | Failed, now: float) -> None:
        """The training has ended."""
        if not isinstance(self.work, Training) or self.work.job is not event.job:
            return  # it was cancelled
        if isinstance(event, Trained):
            self.out += self._reporting.save(self.work.round, event)
            self.allowance.learn(len(event.blob))
            self._report(now)
        else:
            short = event.code == "codec" and event.job.max_bytes > 0
            why = self.allowance.too_short(event.job) if short else Trouble(event.code, event.reason)
            self._give_up(self.work.round, why, now, tries_again=True)
            text = f"round {event.job.round.round}: {event.reason}"
            self.out.append(Note("error", text, f"round failed: {event.code}"))
            self.consider(now)

    def _report(self, now: float) -> None:
        """Report the saved update."""
        assert self.terms is not None and self.round is not None
        if self.round.state == "waiting" and self.device not in self.round.unearned:  # the next round may accept it
            self.work = None
            self.publish_status()
            return
        saved = self._saved.outbox
        refusal = None if saved is None else self.allowance.stops(self.terms, [len(saved.blob)], now)
        if refusal is not None:
            self.sit_out(refusal, now)
            return
        self.work, out = self._reporting.begin(self.terms, self.round, self.link.max_packet_bytes)
        self.out += out
        if self.round.only_new_data:  # before the update, at which the round may close and the next one open
            self.publish_status()
        if self.online:
            self.out += self.work.send(now)
        self.publish_status()

    # Reports

    def on_sent(self, event: Sent, now: float) -> None:
        """The broker has acknowledged, or refused, a part of the update."""
        if isinstance(self.work, UpdateReport):
            self.out += self.work.on_sent(event.token, event.ok, now)

    def on_missing(self, message: Missing, now: float) -> None:
        """The aggregator asks for parts of the update."""
        report = self.work
        if self.online and isinstance(report, UpdateReport) and report.number == message.round:
            self.out += report.on_missing(message.parts, now)

    def on_receipt(self, receipt: Receipt, now: float) -> None:
        """The aggregator has counted the update, or rejected it."""
        report = self.work
        if not isinstance(report, UpdateReport) or not report.is_answered_by(receipt):
            return
        if not self._saved.is_meant_by(receipt):
            return
        assert self.terms is not None
        why = "" if receipt.outcome == "counted" else f"round {receipt.round}: {receipt.outcome}: {receipt.reason}"
        if why:
            self.out += self._reporting.on_rejected(why)
        elif self.online or receipt.folded or not report.is_late:
            feedback = self.terms.manifest.error_feedback
            self.out += self._reporting.on_counted(report, receipt, feedback=feedback, now=now)
        if self._saved.outbox is not None:
            return
        if report.is_late:  # it is settled: the device may take part in the open round
            self.work = None
            self.consider(now)
        else:
            is_sound = receipt.folded > 0  # its own round was over, and this device does not know that yet
            trouble = Trouble("rejected", why) if why and not is_sound else None
            self._give_up(report.round, trouble, now, tries_again=False)  # it would be rejected again
            self.publish_status()
