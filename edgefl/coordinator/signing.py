"""Signing: what the aggregator signs, whose updates it believes, and the chain of its model versions. No I/O.

All that it publishes, but parts of models, is sealed for its topic (trust/seal.py). A round says when it was issued and
when it expires. The round that is retained is issued again when half of that time has passed, so it never expires while
its aggregator lives. Claims that this federation's signer has not sealed are not read.

The chain commits to every version: chain(v) = SHA-256(chain(v-1) | v | SHA-256 of the params as the aggregator has
them), in hex, with a newline between. Two histories of one federation never meet again, so a device notices that its
aggregator was restored from a backup, or tells devices different things. Each record has the chain, so it is as durable
as its commit.

`Open` stands for a federation without keys: nothing is sealed, and every update is believed. Part of RoundCoordinator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np

from ..core.params import params_sha256
from ..errors import UsageError
from ..history_record import RoundRecord
from ..machine import Publish
from ..masking.exchange import Ask, seal_ask
from ..protocol.manifest import Manifest
from ..protocol.round import Round
from ..protocol.signed_update import Context, NotSigned, check
from ..protocol.topics import Topics
from ..trust.certificate import purpose_of
from ..trust.roster import Member, Roster
from ..trust.seal import open_seal, seal
from .events import Action, SignerRead

Keys = tuple[SignerRead, Roster]
LIFE_S = 24 * 3600  # that a round is valid, beside its deadline; devices get the retained one twice in this time


class Open:
    """Without keys. `run` is what rounds and receipts name; `reissue_at` when the round is due again."""

    run = ""
    epoch = 0  # of our certificate
    signed = False  # updates are
    reissue_at: float | None = None

    def sealed(self, actions: list[Action]) -> list[Action]:
        """The actions, with every message sealed that devices verify."""
        return actions

    def read_claim(self, payload: bytes) -> bytes:
        """The claim in a message; ProtocolError if the federation's signer has not sealed it."""
        return payload

    def member(self, device: str) -> Member | None:
        """What the roster says of the device; None if it says nothing, or there is none."""
        return None

    def max_examples(self, device: str) -> int | None:
        """The most examples that the device is enrolled with, if the roster says that."""
        member = self.member(device)
        return None if member is None else member.max_examples

    @property
    def enrolled(self) -> list[str]:
        """The devices that the roster names as enrolled; none without one."""
        return []

    def is_enrolled(self, device: str) -> bool:
        """Whether anything that the device sends is to be read."""
        return True

    def is_revoked(self, device: str) -> bool:
        """Whether the device was enrolled, and what it has left on the broker is to be cleared."""
        return False

    def open(self, device: str, topic: str, payload: bytes) -> bytes:
        """A message of the device without its seal; ProtocolError if the device has not sealed it for this topic."""
        return payload

    def check(self, device: str, round: int, version: int, blob: bytes) -> None:
        """NotSigned unless the device has signed this update, for this round and from this version."""

    def begin(self, records: Iterable[RoundRecord]) -> Iterator[RoundRecord]:
        """The records, oldest first, whose last one has the chain."""
        return iter(records)

    def advance(self, params: np.ndarray, version: int) -> None:
        """These params are the model from now on, at the start too."""

    def record(self, record: RoundRecord) -> RoundRecord:
        """The record with the chain."""
        return record

    def stamp(self, round: Round, unix_s: float | None, now: float) -> Round:
        """The round as it is announced now."""
        return round

    def seal_ask(self, ask: Ask, helper: str) -> bytes:
        """What a helper is asked, as this aggregator's key signs it."""
        raise UsageError("masked rounds need keys: set [keys] dir")


class Signing(Open):
    """With keys. `signer` and `roster` are replaced while the aggregator runs (events.SignerRead, RosterRead)."""

    signed = True

    def __init__(self, topics: Topics, manifest: Manifest, keys: Keys) -> None:
        self.run, self.signer, self.roster = manifest.run, *keys
        self._topics, self._federation, self._codec = topics, manifest.federation, manifest.update_codec.wire_id
        self._certified = (topics.manifest, topics.round, topics.summary)
        self._previous = self._chain = ""
        self._chained: int | None = None  # the version of `_chain`
        self._issued = 0

    @property
    def epoch(self) -> int:  # type: ignore[override]
        return self.signer.epoch

    def sealed(self, actions: list[Action]) -> list[Action]:
        return [self._seal(action) if isinstance(action, Publish) else action for action in actions]

    def _seal(self, message: Publish) -> Publish:
        topic = message.topic
        if not message.payload or self._topics.model_part(topic) is not None:
            return message  # a topic is cleared; and models have the SHA-256 that the round names
        if self._topics.ask_part(topic) is not None:
            return message  # it is sealed as a whole
        certificate = self.signer.certificate if topic in self._certified else b""
        payload = seal(message.payload, self._purpose(topic), self.signer.key, certificate)
        return Publish(topic, payload, message.retain, message.token)

    def seal_ask(self, ask: Ask, helper: str) -> bytes:
        return seal_ask(ask, helper, self.signer.epoch, self.signer.key, self.signer.certificate)

    def _purpose(self, topic: str) -> str:
        """Claims are read by aggregators, which go by no epoch."""
        return topic if topic == self._topics.aggregator else purpose_of(topic, self.signer.epoch)

    def read_claim(self, payload: bytes) -> bytes:
        return open_seal(payload, self._topics.aggregator, self.signer.key.public) if payload else payload

    def member(self, device: str) -> Member | None:
        return self.roster.get(device)

    @property
    def enrolled(self) -> list[str]:
        return self.roster.enrolled

    def is_enrolled(self, device: str) -> bool:
        return self.roster.get(device) is not None

    def is_revoked(self, device: str) -> bool:
        return self.roster.is_revoked(device)

    def open(self, device: str, topic: str, payload: bytes) -> bytes:
        member = self.roster.get(device)
        if member is None:
            raise NotSigned(f"device {device} is not enrolled, or revoked: dropped")
        return open_seal(payload, topic, member.public)

    def check(self, device: str, round: int, version: int, blob: bytes) -> None:
        member = self.roster.get(device)
        if member is None:
            raise NotSigned(f"device {device} is not enrolled, or revoked: rejected")
        where = Context(self._federation, self.signer.epoch, self.run, round, version, device, self._codec)
        check(blob, where, member.public)

    def begin(self, records: Iterable[RoundRecord]) -> Iterator[RoundRecord]:
        for record in records:
            if record.chain:
                self._previous, self._chain, self._chained = record.previous, record.chain, record.version
            yield record

    def advance(self, params: np.ndarray, version: int) -> None:
        if version == self._chained:
            return
        self._previous, self._chained = self._chain, version
        link = f"{self._previous}\n{version}\n{params_sha256(params)}"
        self._chain = hashlib.sha256(link.encode()).hexdigest()

    def record(self, record: RoundRecord) -> RoundRecord:
        return msgspec.structs.replace(record, previous=self._previous, chain=self._chain)

    def stamp(self, round: Round, unix_s: float | None, now: float) -> Round:
        issued = self._issued = max(self._issued, int(unix_s or 0))
        ends = unix_s is not None and round.state != "done"
        self.reissue_at = now + LIFE_S / 2 if ends else None
        return msgspec.structs.replace(
            round, run=self.run, previous=self._previous, chain=self._chain, issued=issued,
            expires=issued + LIFE_S + int(round.deadline_s) if ends else 0,
        )  # fmt: skip
