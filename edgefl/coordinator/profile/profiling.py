"""Profiling: orders of a profile, and the end of the round that makes one. No I/O. Part of RoundCoordinator.

rounds.py says when such rounds open, gathering.py what comes of them.
"""

from __future__ import annotations

from collections import deque

import msgspec

from ...history_record import RoundRecord
from ...machine import Note
from ..closing import Candidate
from ..events import Answered, AskProfile, SaveProfile
from ..state import CoordinatorState
from .gathering import Gathering
from .summed import SummedProfile


class Profiling(CoordinatorState):
    """Each method adds what the host has to do to `_out`."""

    def _on_profile_order(self, order: AskProfile) -> None:
        """The next round makes a profile, unless the open one does, or none can."""
        if self.masked is not None and self.masked.profiles.missing:
            self._out.append(Answered(order.order, False, self.masked.profiles.missing))
            return
        if self._asks_operator:
            self._out.append(Answered(order.order, False, self._asks_operator))
            return
        self.profiles.orders.append(order.order)

    def _refuse_profile_orders(self, why: str) -> None:
        """The next round can't make a profile."""
        self._out += [Answered(order, False, why) for order in self.profiles.orders]
        self.profiles.orders.clear()

    def _answer_profile_orders(self) -> None:
        """After the commit: a crash before it makes the round a profile again, as devices know it."""
        self._out += self.profiles.answers
        self.profiles.answers = []

    def _conclude_profile(
        self, gathering: Gathering | SummedProfile, record: RoundRecord
    ) -> tuple[Candidate | None, RoundRecord]:
        """The model with its scaling, if it gets one; the profile goes to the operator."""
        orders, self.profiles.orders = self.profiles.orders, deque()
        if record.state == "abandoned":
            self._out.append(Note("warning", f"round {self.round} abandoned: {record.why}"))
            text = f"round {self.round} was abandoned: {record.why}"
            self.profiles.answers = [Answered(order, False, text) for order in orders]
            return None, msgspec.structs.replace(record, profile=True, train_loss=None)
        record, profile, params = self.profiles.conclude(gathering, record, self.params)
        self._out.append(SaveProfile(profile))
        if unknown := self.profiles.unknown(profile):
            self._out.append(Note("warning", f"round {self.round}: {unknown}", round=self.round))
        self.profiles.answers = [Answered(order, True, f"round {self.round} has told the profile") for order in orders]
        return None if params is None else Candidate(params, self.strategy.state()), record
