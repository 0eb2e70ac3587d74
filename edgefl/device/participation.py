"""Participation: what a device does for the rounds: fetch the model, train, report, or sit out. No I/O.

It compares what the device is doing with what the newest round asks for, and goes on, stops or begins.
Part of DeviceSession, which reads what arrives and hears what the owner says.
"""

from __future__ import annotations

from msgspec.structs import replace

from ..errors import ProtocolError
from ..machine import Note
from ..protocol.manifest import Manifest
from ..protocol.round import Round
from ..protocol.trouble import Trouble
from . import inbound
from .engagement import Engagement
from .events import Failed, StartTraining, Trained, TrainJob
from .model.fetch import ModelFetch
from .model.way import check_frames
from .owner.budget import Refusal
from .report.update_report import UpdateReport
from .work import Terms, Training, Work, goes_on

IN_ITS_LOG = "the round was not trained: this device's log says why"  # reasons have losses and numbers of examples
UNKNOWN_S = 60.0  # until the owner's limits are looked at again, while the time of day is not known


class Participation(Engagement):
    """Decides what the device does for the newest round."""

    _unfit: tuple[str, int, Trouble] | None = None  # the manifest that refused these data (Failed), and why

    def on_tick(self, now: float) -> None:
        """Time has passed: the work goes on, or a pause of the device's own is over."""
        knows_time = self.status.sits_out and self.status.ready_at is None and self.clock.offset is not None
        if not knows_time and (self.work_at is None or now < self.work_at):
            return
        if knows_time or (self.status.ready_at is not None and now >= self.status.ready_at):
            self.status.retry()  # also while a model comes for the owner's files, which may never be whole
            self.consider(now)
            self.publish_status()
        elif self.work is not None and not self._stops(self.work, now):
            self.out += self.work.on_tick(now)

    def close(self, now: float) -> None:
        """Outside the owner's hours what was begun within them ends, but for a report."""
        refusal = self.allowance.closed(now)
        if refusal is None:
            return
        self.out += self.canary.stop()
        if isinstance(self.work, Training | ModelFetch):
            self.sit_out(refusal, now)

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
        self.drop_plain()
        self.ask_consent(round, terms.manifest, now)
        if round.state == "open" and not (self.status.gave_up(round) or self.status.sits_out):
            self.status.recover()  # when all is done, the reason stays visible
        asked = (
            self.trains
            and round.asks(self.device)
            and (not round.only_new_data or self._saved.is_fresh or self._saved.serves(round))
        )
        if work is not None and goes_on(work, self._saved, round, asked):
            self.takes_part = not self.status.is_away_from(round)
            self._go_on(work, round, now)
            return
        self.out += self._saved.settle(round)
        late = self._saved.late(round)
        self.takes_part = not self.status.is_away_from(round) and (asked or late or self._prepares(round))
        if not self.takes_part and not (self.may_fetch_alone and self.delivery.wants_fetch(round, now)):
            self.stop_work()
            self.publish_status()
        elif self.takes_part and (late or self._saved.serves(round)):
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
        unfit = self._unfit if self.takes_part and round.needs_model else None
        if unfit is not None and unfit[:2] == (terms.manifest.id, self._saved.stamp):
            self.stop_work()
            self.give_up(round, unfit[2], now, tries_again=True)
            self.publish_status()
            return
        fetch = None
        if round.needs_model or not self.takes_part:
            fetch = self._fetch(round, terms, now)
        else:
            self.stop_work()
        payloads = fetch.payloads if fetch else []
        if not self.takes_part:
            if (refusal := self.allowance.fetch(terms, payloads, now)) is not None:
                self._postpone(refusal, now)
                return
        else:
            refusal = self.allowance.plan(round, terms, payloads, now)
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
        work, reached = self.work, {}
        if isinstance(work, ModelFetch) and not self.models.has(round):
            if work.redirect(round):
                return work
            reached = work.reached
        self.stop_work()
        return self.models.fetch(round, terms, reached, now)

    def _go_on(self, work: Work, round: Round, now: float) -> None:
        """Continue the work, which serves `round` too."""
        last = work.round
        if not isinstance(work, UpdateReport):
            if last.round == round.round:
                work.follow(round)
            self.publish_status()
            return
        work.follow(round, asks=self._saved.only_asks(round))
        abandoned = work.counted and work.number != round.round
        unsure = last.round != round.round and self._saved.is_unsure(round)
        if abandoned or (unsure and not work.flows) or last.attempt != round.attempt:
            self._report(now)
            return
        if unsure:
            self.out += work.ask(now)
        again = last.round == round.round  # announced again: parts may be lost
        if self.device in round.unearned:  # no round may have been open when it was sent last
            work.hurry(now)
            again = True
        if self.online and again:
            self.out += work.probe(now)
        self.publish_status()

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

    # The owner's files

    @property
    def trains(self) -> bool:
        """Whether the owner has this device train at all."""
        return self.delivery.wanted is None or self.delivery.wanted.trains

    def deliver(self, now: float) -> None:
        """At the end of each step: bring the owner's files up to date, if they are not and that can be done now."""
        round, terms = self.round, self.terms
        if self.delivery.wanted is None or round is None or terms is None or round.manifest != terms.manifest.id:
            return
        if self.models.has(round):
            self.out += self.delivery.deliver(terms.manifest, round, self.models.params(round), now)
        if not self.may_fetch_alone:
            return
        if size := self.delivery.skeleton_size(terms, now):
            refused = self.allowance.fetch(terms, [size], now) is not None
            self.out += self.delivery.wait(now + UNKNOWN_S) if refused else self.delivery.ask(terms, now)
        if self._lacks(round, now):
            self.consider(now)
            if self._lacks(round, now):
                self.delivery.postpone(now + UNKNOWN_S)

    def _lacks(self, round: Round, now: float) -> bool:
        """Whether nothing brings the model that is wanted for the owner's files."""
        return self.work is None and not self.models.has(round) and self.delivery.wants_fetch(round, now)

    def _postpone(self, refusal: Refusal, now: float) -> None:
        """A model that is wanted for the owner's files alone has to wait for their limits; the device's state does
        not change by that."""
        self.stop_work()
        unix_s = self.clock.at(now)
        until = None if refusal.until is None or unix_s is None else now + refusal.until - unix_s
        self.delivery.postpone(now + UNKNOWN_S if until is None else until)
        self.publish_status()

    # Model and training

    def on_model_part(self, part: inbound.ModelPart, now: float) -> None:
        """A part of a model has arrived; ProtocolError if it is not what belongs there."""
        fetch = self.work
        self.out += self.delivery.on_part(part, now)
        if not isinstance(fetch, ModelFetch):
            self.out += self.canary.on_part(part, now)
            return
        self.out += fetch.on_part(part.topic, part.payload, now)
        if fetch.params is not None:
            self.models.keep(fetch)
            self._on_model()

    def _on_model(self) -> None:
        """The round's model is here."""
        assert self.round is not None
        if self.takes_part and self.round.asks(self.device):
            self._train()
        else:  # no round is open yet, or it was fetched for the owner's files
            self.work = None
            self.publish_status()

    def _train(self) -> None:
        assert self.terms is not None and self.round is not None
        params = self.models.params(self.round) if self.round.needs_model else b""
        job = TrainJob(self.terms.manifest, self.round, params, self._reporting.bytes_down, self.allowance.max_bytes)
        self.work = Training(self.round, job)
        self.publish_status()
        self.out.append(StartTraining(job))

    def on_result(self, event: Trained | Failed, now: float) -> None:
        """The training has ended, or what a canary evaluates."""
        if self.canary.job is event.job:
            self.out += self.canary.on_result(event)
            return
        if not isinstance(self.work, Training) or self.work.job is not event.job:
            return  # it was cancelled
        if isinstance(event, Trained):
            blob = self._trust.sign(event.job.manifest, self.work.round, event.blob)
            self.out += self.consent.news()
            self.out += self._reporting.save(self.work.round, replace(event, blob=blob), self._trust.signer)
            self.allowance.learn(self.work.round, len(event.blob))
            self._report(now)
        else:
            short = event.code == "codec" and event.job.max_bytes > 0
            told = IN_ITS_LOG if self.consent.hides else event.reason
            why = self.allowance.too_short(event.job) if short else Trouble(event.code, told)
            if event.unfit:
                self._saved.stamp = event.unfit
                self._unfit = event.job.manifest.id, event.unfit, why
            self.give_up(self.work.round, why, now, tries_again=not event.final)
            text = f"round {event.job.round.round}: {event.reason}"
            self.out.append(Note("error", text, f"round failed: {event.code}", event.job.round.round))
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
