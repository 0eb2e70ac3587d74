"""Candidates: models that wait for their scores: the one that a round has made, or one that the operator goes back to.

No I/O. Part of RoundCoordinator.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from ...history_record import RoundRecord
from ...machine import Note, Received
from ...protocol.inbox import Verdict
from ...protocol.messages import decode
from ..closing import Candidate, Closed, Closing
from ..events import Answered, Evaluate, Evaluated, Rollback
from ..state import CoordinatorState
from ..updates.tally import Tally


class Candidates(CoordinatorState):
    """Each method adds what the host has to do to `_out`."""

    def _evaluate(self, closing: Closing) -> None:
        """Have the candidate evaluated; before it the newest model, if the gate needs its scores and lacks them."""
        self.phase, self._closing = "evaluating", closing
        if self._wants_base(closing):
            self._out.append(Evaluate(self.params))
        self._out.append(Evaluate(closing.candidate.params))

    def _wants_base(self, closing: Closing) -> bool:
        return self.gate.wants_base and not closing.order

    def _judge(self, result: Evaluated, now: float) -> Closed | None:
        """The round is over, with a model or with one that was refused; None: more scores are to come."""
        closing = self._closing
        assert closing is not None
        if result.update_s is not None:
            self.pace.learn(result.update_s)
        if self._wants_base(closing):
            self.gate.base = result
            return None
        self._closing = None
        record, tally = closing.record, closing.tally
        seconds = 0.0 if tally is None else now - tally.opened_at
        record = msgspec.structs.replace(record, loss=result.loss, accuracy=result.accuracy, seconds=seconds)
        if closing.order or tally is None or tally.gathering is not None:  # nobody judges these
            drop = [] if tally is None else tally.late_to_drop(committed=False)
            self.gate.base = result
            return Closed(record, closing.candidate.params, drop, closing.order)
        if self.gate.settings.judge == "canaries":
            self._begin_judging(replace(closing, record=record), now)
            return None
        if why := self.gate.refuses(result):
            return self._refuse(closing.candidate, record, tally, why)
        self.gate.base = result
        return self._accept(closing.candidate, record, tally)

    def _accept(self, candidate: Candidate, record: RoundRecord, tally: Tally) -> Closed:
        return Closed(record, candidate.params, tally.late_to_drop(committed=True))

    def _refuse(self, candidate: Candidate, record: RoundRecord, tally: Tally, why: str) -> Closed:
        """The model stays as it is, and so does the strategy's state."""
        self.strategy.restore(candidate.before)
        tally.spoil_folded()
        self.earlier.refuse(tally)
        self._out.append(Note("warning", f"round {self.round}: the new model is refused: {why}", round=self.round))
        record = msgspec.structs.replace(record, state="refused", version=self.version, why=why)
        return Closed(record, None, tally.late_to_drop(committed=False))

    # Canaries

    def _begin_judging(self, closing: Closing, now: float) -> None:
        """Show the candidate to the canaries."""
        self.phase, self._closing = "judging", closing
        self._out += self.announcer.propose(closing.candidate.params, self.version + 1)
        self._show(now)

    def _show(self, now: float) -> None:
        message = msgspec.structs.replace(self._round("open"), run=self.signing.run)
        newest, candidate = (self.announcer.to_judge(message, candidate=which) for which in (False, True))
        self.jury.begin(newest, candidate, now)
        self._out += self.jury.ask(self._there(), now)

    def _there(self) -> list[str]:
        return [device for device in self.presence.statuses if self.presence.is_present(device)]

    def _on_verdict(self, device: str, event: Received, now: float) -> Closed | None:
        """A canary has judged. One that comes too late changes nothing."""
        if self.phase != "judging" or not self.fence.held:
            return None
        self.jury.hear(device, decode(Verdict, self.signing.open(device, event.topic, event.payload)), now)
        return self._look_at_jury(now)

    def _look_at_jury(self, now: float) -> Closed | None:
        """Ask canaries that have not judged yet; the round is over if all have, or at the deadline."""
        if not self.fence.held:  # it decides when the federation is ours again
            return None
        there, closing = self._there(), self._closing
        if now < self.jury.closes_at and not self.jury.is_done(there):
            self._out += self.jury.ask(there, now)
            return None
        assert closing is not None and closing.tally is not None
        return self._decide(closing, closing.tally, self.jury.refuses(), now)

    def _overrule(self, now: float) -> Closed:
        """The operator goes back to an earlier model: nobody needs to judge this one."""
        closing = self._closing
        assert closing is not None and closing.tally is not None
        return self._decide(closing, closing.tally, "the operator has ordered a roll-back", now)

    def _decide(self, closing: Closing, tally: Tally, why: str, now: float) -> Closed:
        self._closing = None
        self.jury.end(committed=not why)
        record = msgspec.structs.replace(closing.record, seconds=now - tally.opened_at)
        if why:
            self._out += self.announcer.withdraw()
            return self._refuse(closing.candidate, record, tally, why)
        return self._accept(closing.candidate, record, tally)

    # Orders

    def _carry_out_order(self, now: float) -> None:
        """Carry out the oldest order, if the federation is ours and nothing else is being decided."""
        if self._orders and self.fence.held and self.phase in ("waiting", "open"):
            self._roll_back(self._orders.popleft(), now)

    def _roll_back(self, order: Rollback, now: float) -> None:
        """Have an earlier model committed as a new version. A round that is open ends with that."""
        if np.array_equal(order.params, self.params):
            text = f"version {self.version} has the model of version {order.version} already: nothing was changed"
            self._out.append(Answered(order.order, True, text))
            return
        tally = self.tally if self.phase == "open" else None
        why = f"rolled back to version {order.version}"
        if tally is not None:
            self.earlier.cut(tally)
            why += ", which ended the round that was open"
        elif not self._announced_wait:  # the next version takes slots that the round announced last may name
            self._out.append(self._publish_round(now))
        self._announced_wait = False
        self._out.append(Note("warning", f"round {self.round}: {why}", round=self.round))
        self.strategy.restore(order.state)
        record = RoundRecord(
            self.round, "rollback", self.version + 1, 0, [], 0, None, tally.bytes_up if tally else 0, 0, 0.0,
            attempt=self.fence.attempt, why=why, restored=order.version,
        )  # fmt: skip
        if tally is not None:
            cohort = msgspec.Raw(msgspec.json.encode(tally.cohort.message))
            record = msgspec.structs.replace(record, by_device=tally.traffic(), cohort=cohort)
        else:  # an earlier process may have opened the round, and died
            self.earlier.skip(record)
        self._evaluate(Closing(Candidate(order.params, {}), record, tally, order.order))
