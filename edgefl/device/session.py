"""DeviceSession: what a device does, decided without any I/O.

    manifest + round -> fetch the model's parts -> train -> save the update -> report it -> wait for the next round
                                                   (or evaluate)

Promises kept here: a round is trained once (the saved update is sent again, not made again); an update is kept
until its round is over, because a PUBACK proves nothing; what belongs to another round, federation, model
or plan is dropped; a device trains only while its owner lets it (`Pause`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..errors import EdgeFLError, ProtocolError
from ..machine import Connected, Disconnected, Note, Received, Sent, Stop, Subscribe, Tick, assert_never
from ..protocol.messages import RETAINED_LIMIT, Inbox, Manifest, Missing, Receipt, Round, decode
from ..protocol.topics import ROOT, ModelTopic, Topics, check_device_id
from .events import Action, Event, Failed, Outbox, Pause, StartTraining, Trained, TrainJob
from .model_fetch import ModelFetch, check_frames
from .saved_update import SavedUpdate
from .status import DeviceStatus
from .terms import Terms
from .update_report import UpdateReport
from .work import Training, Work, cancel, goes_on


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
        self.dropped = 0  # messages that were not what the protocol says
        self._rng = rng
        self._saved = SavedUpdate(outbox)
        self._max_model_bytes = max_model_bytes
        self._intern = intern
        self._link = Connected()
        self._heard_manifest = ""  # the newest's id, taken or refused: a full queue may have lost it on the way
        self._bytes_down = 0  # since the last update that is known to be counted
        self._bytes_told = 0  # of these, what the saved update says
        self._held: dict[str, bytes] = {}  # params by digest: the newest, and the anchor that deltas start from

    @property
    def wake_at(self) -> float | None:
        """When a Tick is wanted."""
        work = self.work
        if not self.online:
            return None
        if isinstance(work, ModelFetch) or (isinstance(work, UpdateReport) and not work.counted):
            return work.retry_at
        return self.status.ready_at

    @property
    def calm_s(self) -> float:
        """A connection that is lost may take so long to come back: nobody waits for this device."""
        owes = isinstance(self.work, UpdateReport) and not self.work.counted
        return 0.0 if self.round is None or owes else self.round.back_s

    def step(self, event: Event, now: float) -> list[Action]:
        """Take one event in; what the host has to do, in order. After Stop, what is being sent goes out, no more."""
        if self._stopped and not isinstance(event, Sent):
            return []  # or a round that comes while last words go out would show this device present again
        match event:
            case Received():
                return self._received(event, now)
            case Connected():
                return self._connected(event, now)
            case Disconnected():
                self.online = False
                if isinstance(self.work, UpdateReport):
                    self.work.on_disconnected()
                return []
            case Sent():
                return self.work.on_sent(event.token, event.ok, now) if isinstance(self.work, UpdateReport) else []
            case Tick():
                return self._tick(now)
            case Trained():
                return self._trained(event, now)
            case Failed():
                return self._failed(event, now)
            case Pause():
                self.status.paused = event.reason
                return [*(self._stop_training() if event.reason else self._consider(now)), *self._show()]
            case Stop():
                self._stopped = True
                return [*self._stop_training(), *self._show("disconnected")]
            case _:
                assert_never(event)

    # Connection

    def _connected(self, event: Connected, now: float) -> list[Action]:
        self.online, self._link = True, event
        self.status.connected(event.boot)
        out: list[Action] = [Subscribe((self.topics.manifest, self.topics.round, self.topics.inbox(self.device)))]
        out += self._show()
        if isinstance(self.work, ModelFetch):
            out += self.work.ask(now)
        elif isinstance(self.work, UpdateReport):
            out += self.work.send(now)
        return out

    def _show(self, state: str = "") -> list[Action]:
        """Publish the presence if it has changed."""
        if not self.online:
            return []
        return self.status.publish(state or ("training" if isinstance(self.work, Training) else "ready"))

    def _tick(self, now: float) -> list[Action]:
        if self.wake_at is None or now < self.wake_at:
            return []
        if isinstance(self.work, ModelFetch):
            return self.work.ask(now)
        if isinstance(self.work, UpdateReport) and not self.work.counted:
            return self.work.send_all(now)
        self.status.recover()
        return self._show()

    # Messages

    def _received(self, event: Received, now: float) -> list[Action]:
        self._bytes_down += len(event.payload)
        if not event.payload:  # a retained message was cleared
            return []
        try:
            if event.topic == self.topics.round:
                return self._on_round(decode(Round, event.payload, RETAINED_LIMIT), now)
            if event.topic == self.topics.manifest:
                return self._on_manifest(decode(Manifest, event.payload, RETAINED_LIMIT), now)
            if event.topic == self.topics.inbox(self.device):
                return self._on_inbox(decode(Inbox, event.payload), now)  # type: ignore[arg-type]
            if where := self.topics.model_part(event.topic):
                return self._on_model_part(where, event.payload, now)
            raise ProtocolError("nothing is expected there: dropped")
        except ProtocolError as error:
            self.dropped += 1
            return [Note("warning", f"{event.topic[:120]!r}: {error}")]

    def _on_manifest(self, manifest: Manifest, now: float) -> list[Action]:
        if manifest.federation != self.federation:
            raise ProtocolError(f"manifest of federation {manifest.federation!r}, not {self.federation!r}: dropped")
        if self.terms is not None and manifest.id == self.terms.manifest.id:
            return [self.status.again()] if self.online else []
        self._heard_manifest = manifest.id
        try:
            self.terms = Terms(manifest, self._max_model_bytes)
        except EdgeFLError as error:
            self.terms = None
            self.status.refuse(f"manifest refused: {error}")
            return [Note("error", self.status.trouble), *self._stop_work(), *self._show()]
        self.status.start_over()
        note = Note("info", f"manifest {manifest.id}: {manifest.plan.num_params} params, codec {manifest.codec}")
        return [note, *self._stop_work(), *self._consider(now)]

    def _on_round(self, round: Round, now: float) -> list[Action]:
        last = self.round
        if last and last.manifest == round.manifest and (round.attempt, round.round) < (last.attempt, last.round):
            raise ProtocolError(f"round {round.round} is older than round {last.round}, or its aggregator is: dropped")
        self._saved.check(round)
        self.round = round
        lost = round.manifest != self._heard_manifest
        return [*([Subscribe((self.topics.manifest,))] if lost else []), *self._consider(now)]

    def _on_model_part(self, topic: ModelTopic, payload: bytes, now: float) -> list[Action]:
        fetch = self.work
        if not isinstance(fetch, ModelFetch):
            return []
        out = fetch.on_part(topic, payload, now)
        if fetch.params is None:
            return out
        self._held = {digest: self._intern(digest, params) for digest, params in fetch.kept.items()}
        return [*out, *self._train()]

    def _on_inbox(self, message: Receipt | Missing, now: float) -> list[Action]:
        report = self.work
        if not isinstance(report, UpdateReport) or message.round != report.number:
            return []
        if isinstance(message, Missing):
            return report.on_missing(message.parts, now) if self.online else []
        if message.attempt != report.round.attempt:
            return []
        if message.outcome == "counted":
            if report.number != report.round.round and not message.folded:  # the round may have been abandoned since
                return report.probe(now) if self.online else []
            where = f"counted in round {message.folded}: it was late" if message.folded else "counted"
            return [Note("info", f"round {message.round}: update {where}"), *self._counted(report, now)]
        why = f"round {message.round}: {message.outcome}: {message.reason}"
        if report.number != report.round.round:  # it was late; the round that is open is another matter
            self.work = None
            return [Note("warning", f"update of {why}"), *self._saved.drop(), *self._consider(now)]
        self._give_up(report.round, why, now)
        return [Note("warning", f"update of {self.status.trouble}"), *self._saved.drop(), *self._show()]

    def _counted(self, report: UpdateReport, now: float) -> list[Action]:
        assert self.terms is not None
        report.counted = True
        self._bytes_down, self._bytes_told = self._bytes_down - self._bytes_told, 0
        if report.number == report.round.round:
            return self._saved.mark_counted(report.round.attempt, durable=self.terms.manifest.error_feedback)
        return [*self._saved.fold(), *self._consider(now)]

    # The round

    def _consider(self, now: float) -> list[Action]:
        """Compare the round that is open with what is being done, and do what it asks."""
        round, terms, work = self.round, self.terms, self.work
        if round is None or terms is None:
            return []
        manifest = terms.manifest
        if round.manifest != manifest.id:
            return [*self._stop_work(), *self._show()]
        try:
            check_frames(round, manifest)
        except ProtocolError as error:
            return [Note("error", str(error)), *self._stop_work(), *self._show()]
        if round.state == "open" and not self.status.gave_up(round):  # when all is done, why stays to be read
            self.status.recover()
        asked = round.asks(self.device)
        if work is not None and goes_on(work, self._saved, round, asked):
            return self._go_on(work, round, now)
        out = [*self._stop_work(), *self._saved.settle(round)]
        late = self._saved.late(round)
        if self.status.paused or self.status.gave_up(round) or not (asked or late):
            return [*out, *self._show()]
        if late or self._saved.serves(round):
            return [*out, *self._report(now)]
        if round.frames[-1].digest in self._held:
            return [*out, *self._train()]
        self.work = ModelFetch(self.topics, manifest, terms.hash, round, self._held, now)
        return [*out, *self._show(), *self.work.ask(now)]

    def _go_on(self, work: Work, round: Round, now: float) -> list[Action]:
        if isinstance(work, UpdateReport):
            abandoned = work.counted and work.number != round.round
            last, work.round = work.round, round
            if abandoned or last.attempt != round.attempt:
                return self._report(now)
            told_anew = self.online and last.round == round.round  # the next round tells nothing of what was lost
            return [*(work.probe(now) if told_anew else []), *self._show()]
        if work.round.round == round.round:
            work.round = round
        return self._show()

    def _give_up(self, round: Round, why: str, now: float) -> None:
        self.work = None
        later_s = self._rng.uniform(0, round.back_s) if round.back_s else 0.0
        self.status.give_up(round, why, now + round.deadline_s + later_s)

    def _stop_work(self) -> list[Action]:
        work, self.work = self.work, None
        return cancel(work)

    def _stop_training(self) -> list[Action]:
        return [] if isinstance(self.work, UpdateReport) else self._stop_work()

    def _train(self) -> list[Action]:
        assert self.terms is not None and self.round is not None
        params = self._held[self.round.frames[-1].digest]
        job = TrainJob(self.terms.manifest, self.round, params, self._bytes_down)
        self.work = Training(self.round, job)
        return [*self._show(), StartTraining(job)]

    def _trained(self, event: Trained, now: float) -> list[Action]:
        if not isinstance(self.work, Training) or self.work.job is not event.job:
            return []
        self._bytes_told = event.job.bytes_down
        return [*self._saved.save(self.work.round, event.blob, event.residual), *self._report(now)]

    def _failed(self, event: Failed, now: float) -> list[Action]:
        if not isinstance(self.work, Training) or self.work.job is not event.job:
            return []
        self._give_up(self.work.round, event.reason, now)
        note = Note("error", f"round {event.job.round.round}: {event.reason}")
        return [note, *self._consider(now)]

    def _report(self, now: float) -> list[Action]:
        terms, round, saved = self.terms, self.round, self._saved.outbox
        assert terms is not None and round is not None and saved is not None
        splitter = terms.split(saved, self._link.max_packet_bytes)
        self.work = UpdateReport(self.topics, self.device, round, saved.round, splitter, self._rng)
        out: list[Action] = []
        if saved.counted != round.attempt:  # the aggregator has forgotten that it counted it
            out = self._saved.mark_counted(0, durable=terms.manifest.error_feedback)
        return [*out, *(self.work.send(now) if self.online else []), *self._show()]
