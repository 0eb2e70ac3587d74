"""Asking: one question to all helpers, until each of them has answered it. No I/O. Part of RoundCoordinator.

A helper that is silent is asked again. Each answer counts once. What is asked, and what an answer means, is for those
who ask: the sum of a set (unmasking.py), or what helpers know (inquiry.py).
"""

from __future__ import annotations

import msgspec

from ...errors import ProtocolError
from ...machine import Publish
from ...masking.exchange import Answer, Ask, answer_bound, read_answer
from ...protocol.envelope import Envelope, Kind
from ...protocol.parts import Assembler, Splitter
from ...protocol.terms import Party, Terms
from ...protocol.topics import HelperTopic, Topics
from ...trust.ed25519 import from_text
from ..signing import Open
from .answered import Answered

ASK_AGAIN_S = 30.0  # a silent helper is asked again; sooner where it has less time for its answer
TRIES = 4  # in that time, at least
PAST = ("old", "second", "known")  # answers that tell of a round of this run that was opened


class Asking:
    """`hash` is in every envelope of the federation. `epsilon` is the highest that a helper has signed, `opened_round`
    the newest round of this run that one has opened, as it says, and `rosters` the serial of the one that each goes
    by. `epsilon_by` and `opened_by`: the helpers that have told so much."""

    def __init__(self, terms: Terms, set_digest: bytes, topics: Topics, *, hash: int, patience_s: float) -> None:
        self.terms, self.set_digest, self.patience_s = terms, set_digest, patience_s
        self.closes_at = self.wake_at = 0.0  # set when it first asks
        self.epsilon, self.opened_round = 0.0, 0
        self.epsilon_by = self.opened_by = ""
        self.rosters: dict[str, int] = {}
        self._topics, self._hash = topics, hash
        self._answers: dict[str, Answer] = {}
        self._arriving: dict[str, Assembler] = {}

    @property
    def pause_s(self) -> float:
        """How long a helper may be silent before it is asked again."""
        return min(ASK_AGAIN_S, self.patience_s / TRIES)

    def ask(self, signing: Open, ask: Ask, answered: Answered, part_bytes: int, now: float) -> list[Publish]:
        """Ask the helpers that have not answered."""
        self.wake_at = min(self.closes_at, now + self.pause_s)
        out: list[Publish] = []
        for party in self.terms.helpers:
            helper = party.name
            if helper in self._answers:
                continue
            seen_round, seen_epsilon = answered.of(party)
            own = msgspec.structs.replace(ask, seen_round=seen_round, seen_epsilon=seen_epsilon)
            splitter = Splitter(
                signing.seal_ask(own, helper), part_bytes, kind=Kind.ASK, codec=0, federation=self._hash,
                round=self.terms.round, version=self.terms.version,
            )  # fmt: skip
            topics = (self._topics.ask(helper, part) for part in range(splitter.parts))
            out += [Publish(topic, splitter.part(part)) for part, topic in enumerate(topics)]
        return out

    @property
    def silent(self) -> list[str]:
        """The helpers that have not answered."""
        return [party.name for party in self.terms.helpers if party.name not in self._answers]

    def hear(self, where: HelperTopic, payload: bytes) -> None:
        """A part of an answer. ProtocolError if it does not belong to one: it is dropped."""
        party = self.terms.party(where.helper)
        if party is None or party.name in self._answers:
            return
        envelope = Envelope.from_bytes(payload)
        if envelope.part != where.part:
            raise ProtocolError(f"part {envelope.part} of an answer on another's topic: dropped")
        assembler = self._arriving.get(party.name)
        if assembler is None:
            assembler = self._arriving[party.name] = self._assembler()
        if not assembler.add(envelope):
            return
        del self._arriving[party.name]
        self._keep(party, read_answer(assembler.blob(), party.name, from_text(party.key), self.terms))

    def _assembler(self) -> Assembler:
        return Assembler(
            kind=Kind.ANSWER, federation=self._hash, round=self.terms.round, version=self.terms.version,
            max_total=answer_bound(self.terms),
        )  # fmt: skip

    def _keep(self, party: Party, answer: Answer) -> None:
        raise NotImplementedError

    def _note(self, party: Party, answer: Answer) -> str:
        """Note what any answer tells. Returns the code of its reason, or "" if it gives no reason."""
        code = answer.reason.partition(":")[0]
        self.rosters[party.name] = answer.roster
        if answer.epsilon > self.epsilon:
            self.epsilon, self.epsilon_by = answer.epsilon, party.name
        if code in PAST and answer.round > self.opened_round:
            self.opened_round, self.opened_by = answer.round, party.name
        return code
