"""Listening: what a device does with each message: believe it or not, agree to a manifest, follow a round. No I/O.

Part of DeviceSession.
"""

from __future__ import annotations

from ..errors import EdgeFLError, ModelError, ProtocolError
from ..machine import Note, Received, Subscribe, assert_never
from ..protocol.inbox import Judge, Missing, Receipt
from ..protocol.manifest import Manifest
from ..protocol.round import Round
from ..protocol.trouble import Trouble
from . import inbound
from .events import Action, Approved, SaveSeen
from .state import SessionState
from .trust import Forged, Refused
from .work import Terms


class Listening(SessionState):
    """Each method adds what the host has to do to the step's actions."""

    _lacking: Round | None = None  # the last one whose manifest has not come

    def _on_message(self, event: Received, now: float) -> None:
        self._reporting.receive(len(event.payload))
        if not event.payload:  # a retained message was cleared
            return
        try:
            opened = self.trust.open(event, now)
            if self.trust.has_turned():
                self._start_over()
            self._process_message(self._shelf.message(self.topics, self.device, opened), now)
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
        """A new epoch has begun: the aggregator may have gone back, and numbers its rounds and models anew. The update
        goes first: a device that is killed in between begins the epoch once more, without it."""
        self._part.stop_work()
        self._part.out += self._saved.drop("")
        self._save_seen()
        self._part.round = self._unnamed = self._lacking = None
        if self.terms is not None:  # else the reason is in the manifest
            self.status.start_over()
            self._part.publish_status()  # rounds wait for a device that was in trouble

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
        if message.manifest is not None and not self._is_named(message.manifest):
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
            self._unnamed = None if self._is_named(manifest.id) else manifest
            if self._unnamed is None:
                self._accept(manifest, now)
        if self._part.online:  # the aggregator asks which devices are there; with RabbitMQ it sees no retained status
            self._part.out += self.status.answer(self._part.out)

    def _is_named(self, manifest: str) -> bool:
        """Whether to go by the manifest of this id now: not while the round names another one that has not come."""
        lacking = self.round is not None and self.round.manifest not in (manifest, self._heard_manifest)
        return not lacking and self.trust.is_named(manifest, self.round)

    def _accept(self, manifest: Manifest, now: float) -> None:
        """Agree to another manifest, or refuse it."""
        self._manifest, self._heard_manifest, self._lacking = manifest, manifest.id, None
        terms, why, saved = self._agree(manifest)
        self._part.out += saved
        self._part.adopt(None if why else terms)
        if why is not None:
            self._refuse(why)
            return
        self.status.start_over()
        text = f"manifest {manifest.id}: {manifest.plan.num_params} params, codec {manifest.codec}"
        self._part.out.append(Note("info", text))
        self._part.stop_work()
        self._part.consider(now)
        self._part.publish_status()  # what it refused was of another manifest, and no round may be there yet

    def _agree(self, manifest: Manifest) -> tuple[Terms | None, Trouble | None, list[Action]]:
        """The terms, or why this version or the owner refuses them, and what has to be saved for the owner."""
        try:
            terms = Terms(manifest, self._max_model_bytes)
            return terms, *self._owner.on_manifest(manifest, self.status.num_examples, hides=self._part.consent.hides)
        except EdgeFLError as error:
            code = "model" if isinstance(error, ModelError) else "manifest"
            return None, Trouble(code, f"manifest refused: {error}"), []

    def _on_approved(self, event: Approved, now: float) -> None:
        """The owner has approved a plan, or taken an approval back."""
        self._owner.approved = event.plans
        manifest = self._manifest
        if manifest is None:
            return
        _, refusal, _ = self._agree(manifest)
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
        if round != last:
            self._part.stay_away(round, now)
        self.status.calm(now)
        if self._unnamed is not None and self._unnamed.id == round.manifest:
            named, self._unnamed = self._unnamed, None
            self._accept(named, now)
            return
        if round.manifest != self._heard_manifest:
            self._lack_manifest(round)
        elif self._lacking is not None:
            self._find_manifest(now)
        self._part.consider(now)
        if self.status.is_missed(round, self.device) and self._part.online:
            self._part.out += self.status.answer(self._part.out)

    def _lack_manifest(self, round: Round) -> None:
        """The manifest that the round names has not come: the broker's queue may have been full, and dropped it. If it
        has not come by the next open round, the retained one is lost, or somebody has replaced it: the aggregator is
        told, and publishes it again."""
        self._part.out.append(Subscribe((self.topics.manifest,)))
        if round.state != "open":
            return
        last, self._lacking = self._lacking, round
        if last is not None and last.manifest == round.manifest and last.round != round.round:
            self._refuse(Trouble("missing", "the manifest that rounds name has not come"))

    def _find_manifest(self, now: float) -> None:
        """Rounds name the manifest again that the device has: it takes part, or says again why it refuses."""
        self._lacking = None
        if self.status.trouble is None or self.status.trouble.code != "missing":
            return
        if self.terms is not None:
            self.status.recover()
            self._part.publish_status()
        elif self._manifest is not None:
            self._accept(self._manifest, now)
        else:  # this version does not know it
            self._part.out.append(Subscribe((self.topics.manifest,)))
