"""Fence: one aggregator a federation, even if two are started by mistake. No I/O. Part of RoundCoordinator.

The fencing token is `attempt`. It rises with every start that wins the federation, is durable before that start
announces anything, and is part of every round, so devices too drop what an older aggregator announces (M. Kleppmann,
"How to do distributed locking", 2016).

    connect   subscribe to the federation's `aggregator` topic, then ask: publish a claim that is not retained
    asking    the broker delivers the retained claim first, then our own question, in this order. If the retained claim
              is held and is as new as ours or newer, another aggregator has the federation, and this one stops. If our
              question comes back first, or after an older claim, the federation is ours
    holding   our claim is retained, and repeated to whatever asks; only now is anything announced or committed. If a
              newer claim comes, this aggregator stops. If one as new as ours comes, from a copy of our state that asked
              at the same time, the aggregator with the lower instance number stays
    released  after a clean end. Another run may follow; our own run, from an older copy of its state, may not

A question alone stops no aggregator: it may come from the broker's queue, sent by a process that has died. If the
broker has lost a claim, the aggregator that holds it publishes it again. Aggregators on different brokers do not notice
each other.
"""

from __future__ import annotations

from typing import Literal

from ..machine import Note, Publish, Subscribe
from ..protocol.messages import Claim, decode, encode
from .events import Action, Fenced, SaveAttempt

PATIENCE_S = 10.0  # before asking again


class Fence:
    """`held`: this aggregator may announce and commit. `lost`: another one may, and this one must stop."""

    def __init__(self, topic: str, run: str, attempt: int, instance: int, take_over: bool = False) -> None:
        self.attempt = attempt
        self.held = self.lost = False
        self.ask_at: float | None = None
        self._topic, self._run, self._take_over = topic, run, take_over
        self.instance = f"{instance:016x}"
        self._connection = 0  # an answer to a question of an earlier connection proves nothing
        self._saved = False

    def connected(self, now: float) -> list[Action]:
        """Ask for the claim."""
        self.held = False
        self._connection += 1
        self.ask_at = now + PATIENCE_S
        return [Subscribe((self._topic,)), self._publish("asking")]

    def disconnected(self) -> None:
        self.held, self.ask_at = False, None

    def ask_again(self, now: float) -> list[Action]:
        """Ask once more: our question has not come back."""
        advice = "let this client write and read there in the broker's access control"
        note = Note("warning", f"our own message on {self._topic} does not come back: {advice}")
        return [note, *self.connected(now)]

    def look_again(self) -> list[Action]:
        """Read the retained claim again, at each round: a full queue may have dropped another aggregator's claim."""
        return [Subscribe((self._topic,))]

    def repeat(self) -> list[Action]:
        """Publish our claim again, which another key signs from now on."""
        return [self._publish("holding")] if self.held else []

    def release(self) -> list[Action]:
        """Give the federation up, at a clean end."""
        if not self.held:
            return []
        self.held = False
        return [self._publish("released")]

    def on_claim(self, payload: bytes) -> list[Action]:
        """A message on the `aggregator` topic; ProtocolError if it is not a claim."""
        if self.lost or self._connection == 0:
            return []
        claim = decode(Claim, payload) if payload else None
        if claim is None or claim.instance == self.instance:
            return self._own(claim)
        return self._holding(claim) if self.held else self._asking(claim)

    def _own(self, claim: Claim | None) -> list[Action]:
        if claim is None:  # cleared by hand
            return [self._publish("holding")] if self.held else []
        if self.held or self.ask_at is None or (claim.state, claim.connection) != ("asking", self._connection):
            return []
        self.held, self.ask_at = True, None
        save: list[Action] = [] if self._saved else [SaveAttempt(self.attempt)]
        self._saved = True
        return [*save, self._publish("holding")]

    def _asking(self, claim: Claim) -> list[Action]:
        """Another aggregator's claim, before the federation is ours."""
        if claim.attempt < self.attempt or claim.state == "asking":
            return []
        if self._saved and claim.attempt == self.attempt and self.instance < claim.instance:
            return []  # a copy of our state, which stops when it hears our claim; if both stopped, none would go on
        gone = claim.state == "released" and claim.run != self._run
        if not (gone or self._take_over):
            return self._lose(claim)
        self.attempt, self._saved = claim.attempt + 1, False
        self._connection += 1
        return [self._publish("asking")]

    def _holding(self, claim: Claim) -> list[Action]:
        """Another aggregator's claim, while the federation is ours: stop, or repeat our own claim."""
        if claim.attempt > self.attempt and claim.state == "asking":
            return []
        if (claim.attempt, self.instance) > (self.attempt, claim.instance) and claim.state != "asking":
            return self._lose(claim)
        return [self._publish("holding")]

    def _lose(self, claim: Claim) -> list[Action]:
        self.held, self.lost, self.ask_at = False, True, None
        whose = "a newer start of this one, or of a copy of its state," if claim.run == self._run else "another one"
        return [
            Fenced(
                f"this federation has another aggregator: {whose} is there (run {claim.run}, attempt {claim.attempt}; "
                f"ours are {self._run}, {self.attempt}). This one stops: if it is the right one, stop the other for "
                "good, and start this one with --take-over"
            )
        ]

    def _publish(self, state: Literal["asking", "holding", "released"]) -> Publish:
        claim = Claim(self._run, self.attempt, self.instance, self._connection, state)
        return Publish(self._topic, encode(claim), retain=state != "asking")
