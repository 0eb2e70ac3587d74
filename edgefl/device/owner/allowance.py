"""Allowance: what the owner's limits (budget.py) mean for a session's work. Part of DeviceSession; no I/O.

It counts what is received and sent, says whether a round's work fits, and how long its update may be. When the day's
limit is spent, it ends the subscriptions that every connection has, until tomorrow.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...machine import Publish, Received, Subscribe, Unsubscribe
from ...protocol.round import Round
from ...protocol.topics import Topics
from ...protocol.trouble import Trouble
from ..events import Action, Event, SaveSpent, TrainJob
from ..work import Terms
from .budget import PACKET_BYTES, Budget, Refusal

PART_BYTES = 256  # of a part beside its data: topic and envelope, its subscription, acknowledgements
HEADER_BYTES = 256  # of an update beside its payload, at most
LEAST = 4  # an update gets at least the usual length divided by this, or the device sits the round out


class Allowance:
    """`max_bytes`: what the update of the newest round may take, 0: no limit."""

    def __init__(self, budget: Budget, topics: Topics, device: str) -> None:
        self.max_bytes = 0
        self._budget = budget
        self._limited = budget.limits.of_bytes
        self._control = (topics.manifest, topics.round, topics.inbox(device))
        self._control_bytes: dict[str, int] = {}
        self._usual = 0  # bytes of the payload of the last update that no budget has shortened
        self._least = 0  # bytes that a payload needs, as far as is known
        self._quiet = False

    def hear(self, event: Event, now: float) -> None:
        """Count a message; begin a new day when it is time."""
        if not self._limited:
            return
        self._budget.look(now)
        if isinstance(event, Received):
            size = _packet(event.topic, event.payload)
            self._budget.count(size)
            if event.topic in self._control[:2]:
                self._control_bytes[event.topic] = size
                self._budget.connection_bytes = sum(self._control_bytes.values())

    def charge(self, actions: list[Action], *, online: bool, last: bool) -> list[Action]:
        """`actions`, counted; with what has to be stored before them, and without those that the day has no bytes for.
        The `last` ones end with what was spent."""
        if not self._limited:
            return actions
        actions = [action for action in actions if not online or self._pays(action)]
        quiet, self._quiet = self._quiet, self._budget.is_spent
        if self._quiet:
            actions = [a for a in actions if not (isinstance(a, Subscribe) and a.topics == self._control)]
        if quiet != self._quiet and online:
            actions = [*actions, (Unsubscribe if self._quiet else Subscribe)(self._control)]
        stored = self._budget.to_store()
        actions = actions if stored is None else [SaveSpent(stored), *actions]
        return [*actions, SaveSpent(self._budget.settle())] if last else actions

    def _pays(self, action: Action) -> bool:
        """Count what an action sends, unless not even that is left of the day: then it is not sent."""
        size = _bytes(action)
        if size and self._budget.today + size > self._budget.limit and not isinstance(action, Unsubscribe):
            return False
        self._budget.count(size)
        return True

    def plan(self, round: Round, terms: Terms, payloads: Sequence[int], now: float) -> Refusal | None:
        """Set `max_bytes` for a round whose model takes payloads of these lengths; or why to sit the round out."""
        self.max_bytes = 0
        fetch = sum(self._cost(terms, length) for length in payloads)
        least, most = self._lengths(round, terms)
        refusal = self._budget.refusal(fetch + self._cost(terms, least), now)
        if refusal is None and self._limited:
            allowed = self._budget.allowed(now) - fetch
            if allowed < self._cost(terms, most):
                self.max_bytes = self._length(terms, allowed)
        return refusal

    def fetch(self, terms: Terms, payloads: Sequence[int], now: float) -> Refusal | None:
        """Why payloads of these lengths can't be fetched now, beside a round's work; None if they can."""
        return self._budget.refusal(sum(self._cost(terms, length) for length in payloads), now)

    def learn(self, round: Round, payload_bytes: int) -> None:
        """The work for this round has ended with an update of this length."""
        if round.needs_model and (not self.max_bytes or payload_bytes < self.max_bytes):
            self._usual = payload_bytes

    def spent(self, now: float) -> Refusal | None:
        """Why the device takes no part for the rest of the day, if all of it is spent."""
        return self._budget.refusal(1, now) if self._budget.is_spent else None

    def closed(self, now: float) -> Refusal | None:
        """Why nothing may be fetched, trained or evaluated now, if it is outside the owner's hours."""
        return self._budget.closed(now)

    def too_short(self, job: TrainJob) -> Trouble:
        """The codec has found no update as short as the budget allows: the next round has to allow twice as much."""
        self._least = 2 * job.max_bytes
        return Trouble("budget", f"its byte budget allows an update of {job.max_bytes} bytes, too few for this codec")

    def stops(self, terms: Terms, payloads: Sequence[int], now: float) -> Refusal | None:
        """Why payloads of these lengths can't be sent or fetched again; None if they fit into the day."""
        need = sum(self._cost(terms, length) for length in payloads)
        if not self._limited or self._budget.affords(need):
            return None
        return self._budget.refusal(need, now)

    def _lengths(self, round: Round, terms: Terms) -> tuple[int, int]:
        """The least and the greatest length of the round's update."""
        if round.mode == "evaluate":
            return HEADER_BYTES, HEADER_BYTES
        if round.terms:
            from ..masked import longest

            return (HEADER_BYTES + (size := longest(round.terms)), HEADER_BYTES + size)
        if round.mode == "profile":
            return self._lengths_of_statistics(terms)
        most = terms.codec.bound(terms.manifest.update_size)
        least = most if terms.codec.lossless else (self._usual or most // 16) // LEAST
        return HEADER_BYTES + min(most, max(least, self._least)), HEADER_BYTES + most

    def _lengths_of_statistics(self, terms: Terms) -> tuple[int, int]:
        from ...core.columns import Columns
        from ...protocol.statistics import bound

        most = bound(Columns.of(terms.manifest.plan).number)
        return HEADER_BYTES + min(most, max(self._least, most // 16)), HEADER_BYTES + most

    def _cost(self, terms: Terms, length: int) -> int:
        """Bytes of all packets that a payload of this length takes."""
        return length + PART_BYTES * -(-length // terms.manifest.part_bytes)

    def _length(self, terms: Terms, cost: int) -> int:
        """The longest payload of an update whose packets take so many bytes at most."""
        part = terms.manifest.part_bytes
        return max(1, cost - PART_BYTES * -(-cost // part) - HEADER_BYTES)


def _bytes(action: Action) -> int:
    """What an action sends."""
    match action:
        case Publish():
            return _packet(action.topic, action.payload)
        case Subscribe() | Unsubscribe():
            return sum(len(topic) + PACKET_BYTES for topic in action.topics)
    return 0


def _packet(topic: str, payload: bytes) -> int:
    return len(topic) + len(payload) + PACKET_BYTES
