"""Canary: judges a model for its aggregator before that commits it. No I/O. Part of Participation.

The request comes in the inbox: a round that only evaluates, whose model no round has named. It counts while it is about
the newest round, so neither its version nor its model changes what the device goes by. Judging is beside the device's
work: it begins only while the device neither fetches nor trains for a round, and it ends when it does. The verdict is
sent and forgotten; the aggregator asks again for one that is lost.
"""

from __future__ import annotations

from ..errors import ProtocolError
from ..machine import Publish
from ..protocol.inbox import Judge, Verdict
from ..protocol.messages import encode
from ..protocol.round import Round
from ..protocol.topics import Topics
from ..protocol.update_header import UpdateHeader
from . import inbound
from .events import Action, CancelTraining, Failed, StartTraining, Trained, TrainJob
from .model.fetch import ModelFetch
from .model.models import Models
from .model.way import check_frames
from .patience import Patience
from .trust import Open
from .work import Terms


class Canary:
    """`job` is the evaluation that the host is doing for it, if there is one."""

    def __init__(self, topics: Topics, device: str, *, models: Models, patience: Patience, trust: Open) -> None:
        self._topics, self._device = topics, device
        self._models, self._patience, self._trust = models, patience, trust
        self._fetch: ModelFetch | None = None
        self._terms: Terms | None = None
        self.job: TrainJob | None = None
        self._verdicts: dict[str, Verdict] = {}  # the last two, by SHA-256

    def stop(self) -> list[Action]:
        """The device has something else to do."""
        fetch, job = self._fetch, self.job
        self._fetch = self.job = None
        out: list[Action] = [] if fetch is None else fetch.cancel()
        return [*out, CancelTraining()] if job is not None else out

    def ask(self, judge: Judge, newest: Round | None, terms: Terms, now: float) -> list[Action]:
        """Judge this model; `newest` is the newest round. ProtocolError if the request is not about that."""
        round = judge.round
        if newest is None or (round.manifest, round.attempt, round.round) != (
            newest.manifest, newest.attempt, newest.round,
        ):  # fmt: skip
            raise ProtocolError(f"a request to judge in round {round.round}, which is not the newest: dropped")
        if round.mode != "evaluate" or not newest.version <= round.version <= newest.version + 1:
            raise ProtocolError("a request to judge that asks for something else: dropped")
        check_frames(round, terms.manifest)
        known = self._verdicts.get(round.model_sha256)
        if known is not None and known.attempt == round.attempt:
            return self._tell(round, known)
        if self.job is not None and self.job.round.model_sha256 == round.model_sha256:
            return []
        if self._fetch is not None and self._fetch.round.model_sha256 == round.model_sha256:
            return self._fetch.on_tick(now) if now >= self._fetch.wake_at else []
        return [*self.stop(), *self._begin(round, terms, now)]

    def _begin(self, round: Round, terms: Terms, now: float) -> list[Action]:
        self._terms = terms
        if self._models.has(round):
            return self._evaluate(round, self._models.params(round))
        fetch = ModelFetch(
            self._topics, terms.manifest, terms.hash, round, held=self._models.held, patience=self._patience, now=now,
            frozen=self._models.frozen,
        )  # fmt: skip
        self._fetch = fetch
        return fetch.ask(now)

    def on_part(self, part: inbound.ModelPart, now: float) -> list[Action]:
        """A part of a model has come; ProtocolError if it is not what belongs there."""
        fetch = self._fetch
        if fetch is None:
            return []
        out = fetch.on_part(part.topic, part.payload, now)
        if fetch.params is None:
            return out
        self._fetch = None
        return [*out, *self._evaluate(fetch.round, fetch.params)]

    def _evaluate(self, round: Round, params: bytes) -> list[Action]:
        assert self._terms is not None
        self.job = TrainJob(self._terms.manifest, round, params, 0, judges=True)
        return [StartTraining(self.job)]

    def on_result(self, event: Trained | Failed) -> list[Action]:
        """The evaluation has ended. Without examples that it holds out a device has no verdict."""
        assert self.job is not None
        round, self.job = self.job.round, None
        if isinstance(event, Failed):
            return []
        header = UpdateHeader.from_bytes(event.blob)
        verdict = Verdict(round.attempt, round.model_sha256, header.eval_loss, header.eval_accuracy, self._trust.run)
        last = list(self._verdicts.items())[-1:]
        self._verdicts = dict([*last, (round.model_sha256, verdict)])
        return self._tell(round, verdict)

    def _tell(self, round: Round, verdict: Verdict) -> list[Action]:
        topic = self._topics.verdict(self._device, round.round)
        return [Publish(topic, self._trust.seal(encode(verdict), topic))]
