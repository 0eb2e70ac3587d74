"""Leads: what a helper has signed that this aggregator does not know. No I/O. Part of RoundCoordinator.

A helper may have opened later rounds than the aggregator's database has, or know of more epsilon. Either that database
was lost or restored from a backup, or the helper lies: to have rounds left out, or to end a federation that has a
budget, a number of rounds, or a learning rate that falls from round to round.

Where rounds have noise, helpers are asked what they know before the first round (inquiring.py). Without noise a lead
shows when a helper refuses a set.

The aggregator makes a round's set and its epsilon durable before it asks. A database that was lost or restored needs
the next epoch of the aggregator's certificate: devices go by no round that goes back, and helpers by no second run. So
a helper may lead until the first sum that is asked for and opened in an epoch; then all know the same, and a record
says so (answered.py). A sum that a backup still waits for does not count: its answer may be one that was kept. From
then on nobody but this aggregator asks: what a helper signs beyond our ledger is not taken over. That is so of a helper
too that is added within the epoch, and may truly know of more, since it has served before. Only its operator can tell
it from a liar, and the next epoch is the operator's word for it.

No helper's word alone ends a federation. It is taken over by itself

    as epsilon          if it leaves half of what our ledger leaves of the budget, and room for the next round. What was
                        taken over before does not count, across restarts too, until a sum was opened: else it would be
                        half after half
    as the newest round if the number of rounds is fixed, or the learning rate falls with it: as far as the time allows
                        since the newest sum that our records have, and leaving half of the rounds that were left then,
                        or half of the learning rate (answered.py); else LEAP rounds at a time

Devices rest after a sum (`separation`). After one that our database has lost, we do not know which devices have to. A
device whose disk was wiped since does not know it either. So no round opens until all of them have rested.

Anything more is a doubt. The federation then waits for its operator, who says with `[privacy] told` or `opened` that it
is so, or takes the helper out. A doubt is in memory alone: a process that starts again asks the helper again.

Rounds that were left out are not run, or by another aggregator. If the others are over and no sum was opened since, the
federation waits for its operator too, across restarts.
"""

from __future__ import annotations

from math import inf

from ...machine import Note
from ...privacy import no_less
from .asking import Asking
from .unopened import Unopened

LEAP = 1000  # rounds that are left out by one refusal, at most, where nothing else accounts for them
WORD = (
    "If this aggregator was restored from a backup, or has lost its state, set [privacy] {} and start it again; else "
    "the helper is at fault: take another"
)


class Leads(Unopened):
    """Each method adds what the host has to do to `_out`. `_doubts`: what helpers say, for the operator to judge."""

    _doubts: tuple[str, ...] = ()

    @property
    def _may_lead(self) -> bool:
        return self._answered.signer_epoch < self.signing.epoch

    def _hear(self, asking: Asking, asked_round: int) -> None:
        """So much is spent, as helpers have signed; `asked_round`: whose sum they were asked for; 0: for none. Once
        helpers know the same as we do, the ledger is not touched, not even for what rounding may make of it: that would
        begin another stretch, which costs more."""
        if self.masked is None:
            return
        epsilon, behind = asking.epsilon, self.masked.is_behind(asking.epsilon)
        if not self._may_lead:
            self._out += self.masked.settle()
            if behind:
                self._disbelieve(asking.epsilon_by, f"epsilon {epsilon:.6g} is spent")
            return
        if behind and (why := self.masked.doubt(epsilon)):
            self._doubt(asking.epsilon_by, f"epsilon {epsilon:.6g} is spent, {why}", f"told = {no_less(epsilon)}")
            return
        if behind:
            text = (
                f"a helper has signed that epsilon {epsilon:.6g} is spent, more than our ledger says: it is taken over"
            )
            self._out.append(Note("warning", text, round=self.round))
        self._out += self.masked.hear(epsilon, asked_round)

    def _skip(self, asking: Asking, over: int, now: float) -> None:
        """Leave the rounds out that a helper has opened, as it says: a restored aggregator loses one round at most, and
        not as many as its backup is old. `over`: the newest round that has its end, as far as we know."""
        newest = asking.opened_round
        if newest <= over or newest + self._rest_rounds <= self.round:
            return
        if not self._may_lead:
            self._disbelieve(asking.opened_by, f"round {newest} was opened")
            return
        rounds, told = self.config.rounds, 0 if self.masked is None else self.masked.settings.opened
        accounted = max(told, self._accounts_for(rounds, now))
        if newest > accounted:
            of_all = "" if rounds is None else f" of {rounds}"
            what = f"round {newest}{of_all} was opened, for which neither our records nor the time since account"
            self._doubt(asking.opened_by, what, f"opened = {newest}")
            return
        last = min(newest, max(told, over + LEAP)) if accounted == inf else newest
        self._leave_out_rounds(
            last, f"a helper has opened round {newest}, so this aggregator was restored from a backup"
        )

    @property
    def _newest_known(self) -> int:
        """The newest round that was opened, or paid for. Rounds that only evaluate, or are passed over, do not count: a
        helper that has opened a round of such a number still tells something new."""
        assert self.masked is not None
        return max(self._answered.newest, self.masked.next_round - 1)

    def _leave_out_told(self) -> None:
        """Leave the rounds out that were opened, as the operator says: a helper may have been restored meanwhile."""
        last = 0 if self.masked is None else self.masked.settings.opened
        if last and last > self._newest_known and self.round < last + self._rest_rounds:
            self._leave_out_rounds(last, f"[privacy] opened says that helpers have opened round {last}")

    def _leave_out_rounds(self, last: int, why: str) -> None:
        """The next round comes after `last`, which was opened, and after the rest that follows it."""
        assert self.masked is not None
        self._answered.led = True
        self._least_round = last + self._rest_rounds
        # On disk too: the helper may be restored itself before a round is paid for.
        self._out += self.masked.leave_out(self._least_round - 1)
        self._out.append(Note("warning", f"{why}: round {self._least_round} is next", round=self.round))

    @property
    def _rest_rounds(self) -> int:
        """The least number of rounds from one to the next that may ask the same devices."""
        return 1 if self.masked is None else max(1, self.masked.settings.separation)

    def _accounts_for(self, rounds: int | None, now: float) -> float:
        lr_decay = self.announcer.manifest.train.lr_decay
        return self._answered.accounts_for(rounds, self.clock.at(now), rest=self._rest_rounds, lr_decay=lr_decay)

    def _doubt(self, helper: str, what: str, setting: str) -> None:
        """The federation waits for its operator: a helper has signed what we can't account for."""
        self._doubts += (f"helper {helper} has signed that {what}. {WORD.format(setting)}",)

    @property
    def _misled(self) -> str:
        """Why the federation waits where its rounds are done; "" if it ends."""
        if not self._answered.led:
            return ""
        more = "raise [rounds] rounds by as many as its model lacks"
        if self.masked is not None and self.masked.settings.noise == "banded":
            more = "begin another run for those that its model lacks, since correlated noise is for so many alone"
        return (
            f"its {self.config.rounds} rounds are over. Some were left out, since they had been opened before, and no "
            "sum was opened after that."
            f" If this aggregator was restored from a backup, {more}; else the helper is at fault"
        )

    def _disbelieve(self, helper: str, what: str) -> None:
        if self._answered.has_opened(helper, self.signing.epoch):
            why = f"{what}, which can't be: it has opened sums in this epoch of our certificate. If"
            when = "this aggregator was restored from a backup"
        else:
            why = f"{what}, and only others have opened sums in this epoch of our certificate: it is not believed. If"
            when = "it has served this federation before"
        text = (
            f"helper {helper} has signed that {why} {when}, begin the next epoch (`edgefl keys epoch`), in which it is "
            "believed; else it is at fault, or another aggregator has our key"
        )
        self._out.append(Note("error", text, f"lead of {helper}", round=self.round))
