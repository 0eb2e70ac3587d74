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
from ..protocol.messages import Judge, Manifest, Missing, Receipt, Round
from ..protocol.topics import ROOT, Topics, check_device_id
from ..protocol.trouble import Trouble
from . import inbound
from .allowance import Allowance
from .budget import Budget, Limits, Spent
from .events import Action, Approved, DataStamp, Event, Failed, Outbox, Pause, SaveSeen, Trained, Unable
from .participation import Participation
from .patience import Patience
from .policy import OPEN, OwnersWord
from .reporting import Reporting
from .status import DeviceStatus
from .trust import Forged, Keys, Open, Pinned, Refused
from .work import Terms, Work


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
        owner: OwnersWord | None = None,
        max_model_bytes: int = 2**28,
        intern: Callable[[str, bytes], bytes] = lambda sha256, blob: blob,
        root: str = ROOT,
        keys: Keys | None = None,
    ) -> None:
        self.device = check_device_id(device)
        self.topics = Topics(federation, root)
        self.federation = federation
        self._stopped = False
        self.status = DeviceStatus(self.topics.status(self.device), num_examples)
        self.dropped = 0  # messages that violated the protocol
        self.refused = 0  # manifests and rounds that require what this version does not know
        self.clock = WallClock()
        self.allowance = Allowance(Budget(limits, spent, self.clock), self.topics, self.device)
        self.trust = Open() if keys is None else Pinned(self.topics, self.device, federation, keys, self.clock)
        self.forged = 0  # messages that the federation's signer has not sealed, or that are older than what was seen
        self._patience = Patience()
        self._reporting = Reporting(
            self.topics, self.device, patience=self._patience, rng=rng, outbox=outbox, in_model=in_model
        )
        self._saved = self._reporting.saved
        self._part = Participation(
            self.topics, self.device, clock=self.clock, status=self.status, allowance=self.allowance,
            reporting=self._reporting, patience=self._patience, rng=rng, intern=intern, trust=self.trust,
        )  # fmt: skip
        self._max_model_bytes = max_model_bytes
        self._owner = owner or OwnersWord(OPEN)
        self._manifest: Manifest | None = None  # the newest, accepted or refused, unless it could not be read
        self._unnamed: Manifest | None = None  # the newest manifest, which no round has named yet
        self._heard_manifest = ""  # id of the newest manifest that has arrived, accepted or refused

    @property
    def wake_at(self) -> float | None:
        """When a Tick is wanted."""
        return self._part.wake_at

    @property
    def calm_s(self) -> float:
        """How long a lost connection may stay away: no round waits for a device that has nothing to report."""
        return self._part.calm_s

    @property
    def round(self) -> Round | None:
        """The newest round."""
        return self._part.round

    @property
    def terms(self) -> Terms | None:
        """What the device has agreed to."""
        return self._part.terms

    @property
    def work(self) -> Work | None:
        """What the device is doing for a round."""
        return self._part.work

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
            self._part.sit_out(refusal, now)
        out, self._part.out = self._part.out, []
        return self.allowance.charge(out, online=self._part.online, last=isinstance(event, Stop))

    def _process(self, event: Event, now: float) -> None:
        match event:
            case Received():
                self._on_message(event, now)
            case Connected():
                self._on_connected(event, now)
            case Disconnected():
                self._part.on_disconnected()
            case Sent():
                self._part.on_sent(event, now)
            case Flow():
                self._patience.flow = event
            case Tick() | WallTime():
                self._part.on_tick(now)
            case Trained() | Failed():
                self._part.on_result(event, now)
            case Pause() | Unable() | DataStamp() | Approved():
                self._on_host(event, now)
            case Stop():
                self._stopped = True
                self._part.stop_training()
                self._part.publish_status("disconnected")
            case _:
                assert_never(event)

    def _on_host(self, event: Pause | Unable | DataStamp | Approved, now: float) -> None:
        """The owner pauses or resumes the device, or approves a plan; the host can't train or can again; or the data
        have changed."""
        if isinstance(event, Approved):
            self._on_approved(event, now)
            return
        if isinstance(event, DataStamp):
            was_fresh, self._saved.stamp = self._saved.is_fresh, event.stamp
            if self._saved.is_fresh == was_fresh:
                return
        elif isinstance(event, Pause):
            self.status.paused = Trouble(event.code, event.reason) if event.reason else None
        else:
            self.status.unable = Trouble(event.code, event.reason) if event.reason else None
            if event.num_examples is not None:
                self.status.num_examples = event.num_examples
            self._part.out.append(Note("error", event.reason) if event.reason else Note("info", "it can train again"))
        if self.status.hindered:
            self._part.stop_training()
        else:
            self._part.consider(now)
        self._part.publish_status()

    def _on_connected(self, event: Connected, now: float) -> None:
        self._part.online, self._part.link = True, event
        self.status.connected(event.boot)
        self._part.out.append(Subscribe((self.topics.manifest, self.topics.round, self.topics.inbox(self.device))))
        self._part.on_connected(now)

    # Messages

    def _on_message(self, event: Received, now: float) -> None:
        self._reporting.receive(len(event.payload))
        if not event.payload:  # a retained message was cleared
            return
        try:
            opened = self.trust.open(event, now)
            if self.trust.has_turned():
                self._start_over()
            self._process_message(inbound.read(self.topics, self.device, opened), now)
        except Refused as error:
            self._part.round = None
            if self.terms is not None:  # else the device is in trouble already
                self._refuse(Trouble("signer", str(error)))
        except ProtocolError as error:
            self.dropped += 1
            self._part.out.append(Note("warning", f"{event.topic[:120]!r}: {error}", "dropped"))
            if isinstance(error, Forged):
                self.forged += 1
                self.status.warn(Trouble("signer", f"{event.topic[:120]!r}: {error}"), now)
                self._part.publish_status()

    def _start_over(self) -> None:
        """A new epoch has begun: the aggregator may have gone back, and numbers its rounds and models anew."""
        self._save_seen()
        self._part.stop_work()
        self._part.out += self._saved.drop("")
        self._part.round = self._unnamed = None
        if self.terms is not None:  # else the reason is in the manifest
            self.status.start_over()

    def _save_seen(self) -> None:
        if (seen := self.trust.news()) is not None:
            self._part.out.append(SaveSeen(seen))

    def _process_message(self, message: inbound.Message, now: float) -> None:
        match message:
            case Manifest():
                self._on_manifest(message, now)
            case Round():
                self._on_round(message, now)
            case inbound.ModelPart():
                self._part.on_model_part(message, now)
            case Receipt():
                self.trust.check_run(message.run)
                self._part.on_receipt(message, now)
            case Missing():
                self._part.on_missing(message, now)
            case Judge():
                self.trust.check_run(message.round.run)
                self._part.on_judge(message, now)
            case inbound.Unsupported():
                self._on_unsupported(message)
            case _:
                assert_never(message)

    def _on_unsupported(self, message: inbound.Unsupported) -> None:
        if message.manifest is not None and not self.trust.is_named(message.manifest, self.round):
            return
        self.refused += 1
        if message.manifest is None:
            self._part.round = None
        else:
            self._part.terms, self._manifest, self._heard_manifest = None, None, message.manifest
        self._refuse(Trouble("manifest", message.why))

    def _refuse(self, why: Trouble) -> None:
        """Sit out until there is another manifest or round, and say why."""
        if why != self.status.trouble:
            self._part.out.append(Note("error", why.text))
        self.status.refuse(why)
        self._part.stop_work()
        self._part.publish_status()

    def _on_manifest(self, manifest: Manifest, now: float) -> None:
        if manifest.federation != self.federation:
            raise ProtocolError(f"manifest of federation {manifest.federation!r}, not {self.federation!r}: dropped")
        self.trust.check_run(manifest.run)
        self._save_seen()
        if self.terms is None or manifest.id != self.terms.manifest.id:
            self._unnamed = None if self.trust.is_named(manifest.id, self.round) else manifest
            if self._unnamed is None:
                self._accept(manifest, now)
        if self._part.online:  # the aggregator asks which devices are there; with RabbitMQ it sees no retained status
            self._part.out += self.status.answer(self._part.out)

    def _accept(self, manifest: Manifest, now: float) -> None:
        """Agree to another manifest, or refuse it."""
        self._manifest, self._heard_manifest = manifest, manifest.id
        try:
            self._part.terms = Terms(manifest, self._max_model_bytes)
            why, saved = self._owner.on_manifest(manifest, self.status.num_examples)
        except EdgeFLError as error:
            why, saved = Trouble("manifest", f"manifest refused: {error}"), []
        self._part.out += saved
        if why is not None:
            self._part.terms = None
            self._refuse(why)
            return
        self.status.start_over()
        text = f"manifest {manifest.id}: {manifest.plan.num_params} params, codec {manifest.codec}"
        self._part.out.append(Note("info", text))
        self._part.stop_work()
        self._part.consider(now)

    def _on_approved(self, event: Approved, now: float) -> None:
        """The owner has approved a plan, or taken an approval back."""
        self._owner.approved = event.plans
        manifest = self._manifest
        if manifest is None:
            return
        refusal, _ = self._owner.on_manifest(manifest, self.status.num_examples)
        if (refusal is None) != (self.terms is not None):
            self._accept(manifest, now)
            self._part.publish_status()

    def _on_round(self, round: Round, now: float) -> None:
        self.trust.judge(round, now)
        self._save_seen()
        last = self.round
        if last and last.manifest == round.manifest and round.order < last.order:
            raise ProtocolError(f"round {round.round} is older than round {last.round}, or its aggregator is: dropped")
        self._saved.check(round)
        self._part.round = round
        self.status.calm(now)
        if self._unnamed is not None and self._unnamed.id == round.manifest:
            named, self._unnamed = self._unnamed, None
            self._accept(named, now)
            return
        if round.manifest != self._heard_manifest:  # the broker's queue may have been full, and dropped it
            self._part.out.append(Subscribe((self.topics.manifest,)))
        self._part.consider(now)
