"""DeviceSession: what a device does, decided without any I/O.

    manifest + round -> fetch the model's parts -> train -> save the update -> report it -> wait for the next round
                                                   (or evaluate)

Promises kept here: a round is trained once (the saved update is sent again, not made again); an update is kept
until its round is over, because a PUBACK proves no delivery; messages of another round, federation, model or plan are
dropped; a device trains only while its owner lets it (`Pause`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..errors import EdgeFLError, ProtocolError
from ..machine import (
    Connected,
    Disconnected,
    Flow,
    Note,
    Received,
    Sent,
    Stop,
    Subscribe,
    Tick,
    WallClock,
    WallTime,
    assert_never,
)
from ..protocol.messages import Manifest, Missing, Receipt, Round
from ..protocol.topics import ROOT, Topics, check_device_id
from ..protocol.trouble import Trouble
from . import inbound
from .allowance import Allowance
from .budget import Budget, Limits, Refusal, Spent
from .events import Action, DataStamp, Event, Failed, Outbox, Pause, StartTraining, Trained, TrainJob, Unable
from .model_fetch import ModelFetch, check_frames
from .patience import Patience
from .reporting import Reporting
from .status import DeviceStatus
from .update_report import UpdateReport
from .work import Terms, Training, Work, goes_on


class DeviceSession:
    """One device in one federation. `intern` may return an equal, shared object for a model's bytes."""

    def __init__(
        self,
        device: str,
        federation: str,
        *,
        num_examples: int,
        rng: random.Random,
        outbox: Outbox | None = None,
        in_model: int = 0,
        limits: Limits | None = None,
        spent: Spent | None = None,
        max_model_bytes: int = 2**28,
        intern: Callable[[str, bytes], bytes] = lambda sha256, blob: blob,
        root: str = ROOT,
    ) -> None:
        self.device = check_device_id(device)
        self.topics = Topics(federation, root)
        self.federation = federation
        self.terms: Terms | None = None
        self.round: Round | None = None
        self.work: Work | None = None
        self.online = self._stopped = False
        self.status = DeviceStatus(self.topics.status(self.device), num_examples)
        self.dropped = 0  # messages that violated the protocol
        self.refused = 0  # manifests and rounds that require what this version does not know
        self.clock = WallClock()
        self.allowance = Allowance(Budget(limits, spent, self.clock), self.topics, self.device)
        self._rng = rng
        self._patience = Patience()
        self._reporting = Reporting(
            self.topics, self.device, patience=self._patience, rng=rng, outbox=outbox, in_model=in_model
        )
        self._saved = self._reporting.saved
        self._max_model_bytes = max_model_bytes
        self._intern = intern
        self._link = Connected()
        self._heard_manifest = ""  # id of the newest manifest that has arrived, accepted or refused
        self._held: dict[str, bytes] = {}  # params by digest: the newest, and the anchor that deltas start from
        self._out: list[Action] = []  # of the step that is being made

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

    @property
    def is_fresh(self) -> bool:
        """Whether the data have changed since they last counted."""
        return self._saved.is_fresh

    @property
    def data_stamp(self) -> int:
        """The newest DataStamp."""
        return self._saved.stamp

    @property
    def wants_news(self) -> bool:
        """Whether it matters to rounds that the data change, which they have not."""
        return self.round is not None and self.round.only_new_data and not self._saved.is_fresh

    def step(self, event: Event, now: float) -> list[Action]:
        """Process one event; returns what the host has to do, in order.

        After Stop only acknowledgements count, for what is still being sent: a round that arrives then would make this
        device publish that it is present.
        """
        self.clock.hear(event, now)
        self.allowance.hear(event, now)
        if not self._stopped or isinstance(event, Sent):
            self._process(event, now)
        if not (self._stopped or self.status.sits_out) and (refusal := self.allowance.spent(now)) is not None:
            self._sit_out(refusal, now)
        out, self._out = self._out, []
        return self.allowance.charge(out, online=self.online, last=isinstance(event, Stop))

    def _process(self, event: Event, now: float) -> None:
        match event:
            case Received():
                self._on_message(event, now)
            case Connected():
                self._on_connected(event, now)
            case Disconnected():
                self._on_disconnected()
            case Sent():
                self._on_sent(event, now)
            case Flow():
                self._patience.flow = event
            case Tick() | WallTime():
                self._on_tick(now)
            case Trained() | Failed():
                self._on_result(event, now)
            case Pause() | Unable() | DataStamp():
                self._on_host(event, now)
            case Stop():
                self._stopped = True
                self._stop_training()
                self._publish_status("disconnected")
            case _:
                assert_never(event)

    def _on_host(self, event: Pause | Unable | DataStamp, now: float) -> None:
        """The owner pauses or resumes the device, the host can't train or can again, or the data have changed."""
        if isinstance(event, DataStamp):
            was_fresh, self._saved.stamp = self._saved.is_fresh, event.stamp
            if self._saved.is_fresh == was_fresh:
                return
        elif isinstance(event, Pause):
            self.status.paused = event.reason
        else:
            self.status.unable = Trouble(event.code, event.reason) if event.reason else None
            if event.num_examples is not None:
                self.status.num_examples = event.num_examples
            self._out.append(Note("error", event.reason) if event.reason else Note("info", "it can train again"))
        if self.status.hindered:
            self._stop_training()
        else:
            self._consider(now)
        self._publish_status()

    # Connection

    def _on_connected(self, event: Connected, now: float) -> None:
        self.online, self._link = True, event
        self.status.connected(event.boot)
        self._out.append(Subscribe((self.topics.manifest, self.topics.round, self.topics.inbox(self.device))))
        self._publish_status()
        if self.work is not None:
            self._out += self.work.on_connected(now)

    def _on_disconnected(self) -> None:
        self.online = False
        if self.work is not None:
            self.work.on_disconnected()

    def _publish_status(self, state: str = "") -> None:
        """Publish the status if it has changed and the device is connected."""
        news_count = self.round is not None and self.round.only_new_data
        self.status.fresh = self._saved.is_fresh or not news_count
        if self.online:
            self._out += self.status.publish(state or ("training" if isinstance(self.work, Training) else "ready"))

    def _on_sent(self, event: Sent, now: float) -> None:
        if isinstance(self.work, UpdateReport):
            self._out += self.work.on_sent(event.token, event.ok, now)

    def _on_tick(self, now: float) -> None:
        knows_time = self.status.sits_out and self.status.ready_at is None and self.clock.offset is not None
        if not knows_time and (self.wake_at is None or now < self.wake_at):
            return
        if self.work is not None and self.work.wake_at is not None:
            if not self._stops(self.work, now):
                self._out += self.work.on_tick(now)
        else:
            self.status.retry()
            self._consider(now)
            self._publish_status()

    def _stops(self, work: Work, now: float) -> bool:
        """End `work` if what it would send or fetch again is more than the owner's byte budget has left today."""
        saved, payloads = self._saved.outbox, work.payloads if isinstance(work, ModelFetch) else []
        if isinstance(work, UpdateReport) and saved is not None:
            payloads = [len(saved.blob)]
        assert self.terms is not None
        refusal = self.allowance.stops(self.terms, payloads, now)
        if refusal is not None:
            self._sit_out(refusal, now)
        return refusal is not None

    def _sit_out(self, refusal: Refusal, now: float) -> None:
        """Take no part until the owner's limits allow it, and say so."""
        self._stop_work()
        unix_s = self.clock.at(now)
        until = None if refusal.until is None or unix_s is None else now + refusal.until - unix_s
        self.status.sit_out(refusal.why, until)
        self._out.append(Note("info", f"sits out: {refusal.why.text}"))
        self._publish_status()

    # Messages

    def _on_message(self, event: Received, now: float) -> None:
        self._reporting.receive(len(event.payload))
        if not event.payload:  # a retained message was cleared
            return
        try:
            self._process_message(inbound.read(self.topics, self.device, event), now)
        except ProtocolError as error:
            self.dropped += 1
            self._out.append(Note("warning", f"{event.topic[:120]!r}: {error}", "dropped"))

    def _process_message(self, message: inbound.Message, now: float) -> None:
        match message:
            case Manifest():
                self._on_manifest(message, now)
            case Round():
                self._on_round(message, now)
            case inbound.ModelPart():
                self._on_model_part(message, now)
            case Receipt():
                self._on_receipt(message, now)
            case Missing():
                report = self.work
                if self.online and isinstance(report, UpdateReport) and report.number == message.round:
                    self._out += report.on_missing(message.parts, now)
            case inbound.Unsupported():
                self._on_unsupported(message)
            case _:
                assert_never(message)

    def _on_unsupported(self, message: inbound.Unsupported) -> None:
        self.refused += 1
        if message.manifest is None:
            self.round = None
        else:
            self.terms, self._heard_manifest = None, message.manifest
        self._refuse(Trouble("manifest", message.why))

    def _refuse(self, why: Trouble) -> None:
        """Sit out until there is another manifest or round, and say why."""
        if why != self.status.trouble:
            self._out.append(Note("error", why.text))
        self.status.refuse(why)
        self._stop_work()
        self._publish_status()

    def _on_manifest(self, manifest: Manifest, now: float) -> None:
        if manifest.federation != self.federation:
            raise ProtocolError(f"manifest of federation {manifest.federation!r}, not {self.federation!r}: dropped")
        if self.terms is None or manifest.id != self.terms.manifest.id:
            self._accept(manifest, now)
        if self.online:  # it is also the question who is there; RabbitMQ has no retained status for the aggregator
            self._out += self.status.answer(self._out)

    def _accept(self, manifest: Manifest, now: float) -> None:
        """Agree to another manifest, or refuse it."""
        self._heard_manifest = manifest.id
        try:
            self.terms = Terms(manifest, self._max_model_bytes)
        except EdgeFLError as error:
            self.terms = None
            self._refuse(Trouble("manifest", f"manifest refused: {error}"))
            return
        self.status.start_over()
        text = f"manifest {manifest.id}: {manifest.plan.num_params} params, codec {manifest.codec}"
        self._out.append(Note("info", text))
        self._stop_work()
        self._consider(now)

    def _on_round(self, round: Round, now: float) -> None:
        last = self.round
        if last and last.manifest == round.manifest and (round.attempt, round.round) < (last.attempt, last.round):
            raise ProtocolError(f"round {round.round} is older than round {last.round}, or its aggregator is: dropped")
        self._saved.check(round)
        self.round = round
        if round.manifest != self._heard_manifest:  # the broker's queue may have been full, and dropped it
            self._out.append(Subscribe((self.topics.manifest,)))
        self._consider(now)

    def _on_model_part(self, part: inbound.ModelPart, now: float) -> None:
        fetch = self.work
        if not isinstance(fetch, ModelFetch):
            return
        self._out += fetch.on_part(part.topic, part.payload, now)
        if fetch.params is not None:
            self._held = {digest: self._intern(digest, params) for digest, params in fetch.kept.items()}
            self._train()

    def _on_receipt(self, receipt: Receipt, now: float) -> None:
        report = self.work
        if not isinstance(report, UpdateReport) or not report.is_answered_by(receipt):
            return
        assert self.terms is not None
        why = "" if receipt.outcome == "counted" else f"round {receipt.round}: {receipt.outcome}: {receipt.reason}"
        if why:
            self._out += self._reporting.on_rejected(why)
        elif self.online or receipt.folded or not report.is_late:
            feedback = self.terms.manifest.error_feedback
            self._out += self._reporting.on_counted(report, receipt, feedback=feedback, now=now)
        if self._saved.outbox is not None:
            return
        if report.is_late:  # it is settled: the device may take part in the open round
            self.work = None
            self._consider(now)
        else:
            trouble = Trouble("rejected", why) if why else None
            self._give_up(report.round, trouble, now, tries_again=False)  # it would be rejected again
            self._publish_status()

    # The round

    def _consider(self, now: float) -> None:
        """Compare what the device does with what the newest round asks for, and do that."""
        round, terms, work = self.round, self.terms, self.work
        if round is None or terms is None:
            return
        if not self._is_sound(round, terms.manifest):
            self._stop_work()
            self._publish_status()
            return
        if round.state == "open" and not (
            self.status.gave_up(round) or self.status.sits_out
        ):  # when all is done, the reason stays visible
            self.status.recover()
        asked = round.asks(self.device) and (
            not round.only_new_data or self._saved.is_fresh or self._saved.serves(round)
        )
        if work is not None and goes_on(work, self._saved, round, asked):
            self._go_on(work, round, now)
            return
        self._stop_work()
        self._out += self._saved.settle(round)
        late = self._saved.late(round)
        if self.status.is_away_from(round) or not (asked or late):
            self._publish_status()
        elif late or self._saved.serves(round):
            self._report(now)
        else:
            self._take_part(round, terms, now)

    def _take_part(self, round: Round, terms: Terms, now: float) -> None:
        """Fetch the model and train it, if the owner's limits allow that."""
        fetch = None if round.frames[-1].digest in self._held else self._make_fetch(round, terms, now)
        refusal = self.allowance.plan(round, terms, fetch.payloads if fetch else [], now)
        self.status.max_bytes = self.allowance.max_bytes
        if refusal is not None:
            self._sit_out(refusal, now)
        elif fetch is None:
            self._train()
        else:
            self.work = fetch
            self._publish_status()
            self._out += fetch.ask(now)

    def _make_fetch(self, round: Round, terms: Terms, now: float) -> ModelFetch:
        return ModelFetch(
            self.topics, terms.manifest, terms.hash, round, held=self._held, patience=self._patience, now=now
        )

    def _is_sound(self, round: Round, manifest: Manifest) -> bool:
        """Whether `round` is of this manifest, and its frames lead to its model."""
        if round.manifest != manifest.id:
            return False
        try:
            check_frames(round, manifest)
        except ProtocolError as error:
            self._out.append(Note("error", str(error)))
            return False
        return True

    def _go_on(self, work: Work, round: Round, now: float) -> None:
        """Continue the work, which serves `round` too."""
        last = work.round
        if not isinstance(work, UpdateReport):
            if last.round == round.round:
                work.follow(round)
            self._publish_status()
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
            self._out += work.probe(now)
        self._publish_status()

    def _give_up(self, round: Round, why: Trouble | None, now: float, *, tries_again: bool) -> None:
        """Sit the round out for a deadline; it may last several."""
        self.work = None
        later_s = self._rng.uniform(0, round.back_s) if round.back_s else 0.0
        self.status.give_up(round, why, now + round.deadline_s + later_s, tries_again=tries_again)

    def _stop_work(self) -> None:
        work, self.work = self.work, None
        if work is not None:
            self._out += work.cancel()

    def _stop_training(self) -> None:
        """Stop training, and the fetch before it; a report goes on."""
        if not isinstance(self.work, UpdateReport):
            self._stop_work()

    def _train(self) -> None:
        assert self.terms is not None and self.round is not None
        params = self._held[self.round.frames[-1].digest]
        job = TrainJob(self.terms.manifest, self.round, params, self._reporting.bytes_down, self.allowance.max_bytes)
        self.work = Training(self.round, job)
        self._publish_status()
        self._out.append(StartTraining(job))

    def _on_result(self, event: Trained | Failed, now: float) -> None:
        if not isinstance(self.work, Training) or self.work.job is not event.job:
            return  # it was cancelled
        if isinstance(event, Trained):
            self._out += self._reporting.save(self.work.round, event)
            self.allowance.learn(len(event.blob))
            self._report(now)
        else:
            short = event.code == "codec" and event.job.max_bytes > 0
            why = self.allowance.too_short(event.job) if short else Trouble(event.code, event.reason)
            self._give_up(self.work.round, why, now, tries_again=True)
            self._out.append(Note("error", f"round {event.job.round.round}: {event.reason}"))
            self._consider(now)

    def _report(self, now: float) -> None:
        assert self.terms is not None and self.round is not None
        if self.round.state == "waiting":  # the next round may accept the update
            self.work = None
            self._publish_status()
            return
        saved = self._saved.outbox
        refusal = None if saved is None else self.allowance.stops(self.terms, [len(saved.blob)], now)
        if refusal is not None:
            self._sit_out(refusal, now)
            return
        self.work, out = self._reporting.begin(self.terms, self.round, self._link.max_packet_bytes)
        self._out += out
        if self.round.only_new_data:  # before the update, at which the round may close and the next one open
            self._publish_status()
        if self.online:
            self._out += self.work.send(now)
        self._publish_status()
