"""Summing: masked rounds, from their terms to the one update that the strategy gets of each. No I/O.

terms.py makes the terms, masked_sum.py adds what comes, unmasking.py has it opened, and unopened.py says what
becomes of devices that seal nonsense, and leads.py what of helpers that know more than we do. What they know is asked
before the first round (inquiry.py). Part of RoundCoordinator.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ... import codecs
from ...core.params import params_to_bytes
from ...history_record import RoundRecord
from ...machine import Note, Received
from ...protocol.round import Draw
from ...protocol.update_header import UpdateHeader
from ...settings import Mode
from ...strategies import Update
from ..closing import Closed
from ..devices.cohort import Cohort
from ..events import SaveAsk
from ..opening import Opening
from ..profile.summed import SummedProfile
from ..updates.admission import Judged
from ..updates.masked_sum import MaskedSum
from ..updates.pace import Pacing
from ..updates.tally import Tally
from .inquiring import Inquiring
from .saved_ask import SavedAsk
from .unmasking import NotOpened, Total, Unmasking
from .unopened import ALL_AT_ONCE, BOXES, SMALLER


class Summing(Inquiring):
    """Each method adds what the host has to do to `_out`."""

    def _masked_sum(self, mode: Mode, present: Collection[str]) -> MaskedSum | None:
        """What a round that opens now, and may ask the devices that are present, adds its updates to, if it is
        masked."""
        if self.masked is None or mode == "evaluate":
            return None
        announcer = self.announcer
        terms = self.masked.terms(
            round=self.round, version=self.version, model_sha256=announcer.downlink.sha256,
            manifest=announcer.manifest_id, mode=mode,
        )  # fmt: skip
        self._out += self.masked.tell(terms)
        left_out = self.unlisted.devices.difference(present)
        return MaskedSum(terms, self.masked.certificates, self.resting.at(self.round), left_out)

    def _begin_unmasking(
        self, masked: MaskedSum, record: RoundRecord, now: float, larger: Unmasking | None = None
    ) -> None:
        """The round is closed with enough updates: have the helpers open their sum. `larger`: what they were asked
        before, and have refused. The record has the epoch in which they are asked: a sum that a backup waits for may be
        opened in a later one, by an answer that was kept, and tells nothing of what helpers have opened since."""
        record = msgspec.structs.replace(record, signer_epoch=self.signing.epoch)
        saved = SavedAsk(record, masked.terms, masked.entries, masked.sums)
        self.phase = "unmasking"
        self._unmasking = self._unmask(saved)
        if larger is not None:
            self._unmasking.began_at, self._unmasking.refused = larger.began_at, larger.refused + 1
        assert self.masked is not None
        self._out += [*self.masked.spend(saved.terms), SaveAsk(saved)]
        text = f"round {self.round}: {len(saved.entries)} masked updates, asking {', '.join(self._unmasking.silent)}"
        self._out.append(Note("info", text, round=self.round))
        self._ask_helpers(now, begins=True)

    def _ask_helpers(self, now: float, *, begins: bool = False) -> None:
        assert self._unmasking is not None
        if begins:
            self._unmasking.begin(now)
        ask, part_bytes = self._unmasking.saved.ask(self.fence.attempt), self.announcer.manifest.part_bytes
        self._out += self._unmasking.ask(self.signing, ask, self._answered, part_bytes, now)

    def _resume_unmasking(self, now: float) -> None:
        """An earlier process has asked for the set of this round, and died: its tally, as far as that matters now."""
        assert self._unmasking is not None
        record = self._unmasking.saved.record
        rule = msgspec.json.decode(record.cohort, type=list[str] | Draw | None)
        cohort = Cohort(record.round, frozenset(rule) if isinstance(rule, list) else rule)
        opening = Opening(cohort, list(record.devices), [], deadline_s=self.config.deadline_s)
        terms = self._unmasking.terms
        mode: Mode = "profile" if record.profile else "train"
        self.tally = Tally(
            opening, round=record.round, version=self.version, mode=mode, opened_at=now - record.seconds,
            pacing=Pacing(), intake=self._make_intake(record.round, self.version, 1, mode), resumed=True,
            masked=MaskedSum(terms, self.masked.certificates if self.masked else ()),
            gathering=self.profiles.open(terms) if record.profile else None,
        )  # fmt: skip
        for device in record.devices:
            self.tally.count(device, Judged(UpdateHeader.masked(profile=record.profile)))
        self._out.append(Note("info", f"round {self.round}: its sum is still to be opened", round=self.round))

    # Answers

    def _on_answer(self, event: Received, now: float) -> Closed | RoundRecord | None:
        """A part of a helper's answer. One that comes too late changes nothing. See `_look_at_answers`."""
        where = self.topics.answer_part(event.topic)
        if where is not None and self._inquiry is not None and self.fence.held:
            self._on_known(self._inquiry, where, event, now)
            return None
        if where is None or self.phase != "unmasking" or self._unmasking is None or not self.fence.held:
            return None
        unmasking = self._unmasking
        try:
            unmasking.hear(where, event.payload)
        except NotOpened as error:
            self._hear_roster(unmasking, where.helper)
            return self._refused(unmasking, error, now)
        self._hear_roster(unmasking, where.helper)
        return self._look_at_answers(now)

    def _refused(self, unmasking: Unmasking, error: NotOpened, now: float) -> Closed | None:
        """A helper does not open the set: the round is over, or (None) it is asked for a smaller one."""
        out, disbelieved = self._leave_out(error, unmasking.saved.entries, now)
        tells_more = unmasking.epsilon > unmasking.terms.epsilon  # so it opens no set under these terms
        goes_on = not tells_more and unmasking.refused < SMALLER
        left = self._without(out, now) if goes_on else None
        if left is not None:
            self._begin_unmasking(*left, now, unmasking)
            return None
        if out and unmasking.refused >= SMALLER:
            disbelieved = f"it has refused {SMALLER} larger sets of this round for other devices: {ALL_AT_ONCE}"
        return self._not_opened("; ".join(filter(None, (str(error), disbelieved))), now)

    def _look_at_answers(self, now: float) -> Closed | RoundRecord | None:
        """The round is over without a model; or its mean is added to the strategy, and this is its record; or (None)
        answers are still to come."""
        if self._unmasking is None or not self.fence.held:
            return None
        try:
            total = self._unmasking.look(now)
        except NotOpened as error:
            self._unheard = bool(self._unmasking.silent)
            return self._not_opened(str(error), now)
        if total is None:
            if now >= self._unmasking.wake_at:
                self._ask_helpers(now)
            return None
        return self._add_total(self._unmasking, total, now)

    def _add_total(self, unmasking: Unmasking, total: Total, now: float) -> RoundRecord:
        """Give the strategy the mean as the one update of this round, or the gathering the sums of a profile."""
        record = unmasking.saved.record
        loss, accuracy = total.held_out or (None, None)
        waited = now - (unmasking.began_at if unmasking.began_at is not None else now)
        record = msgspec.structs.replace(
            record, num_examples=total.weight, device_loss=loss, device_accuracy=accuracy, helpers_s=round(waited, 3),
            epsilon=unmasking.terms.epsilon, helped={party.name: party.epoch for party in unmasking.terms.helpers},
            within=total.within,
        )  # fmt: skip
        if total.left_out:
            text = f"round {self.round}: {total.left_out} of {unmasking.terms.groups} groups are left out of the mean"
            self._out.append(Note("warning", text, round=self.round))
        if total.profile is not None:
            assert self.tally is not None and isinstance(self.tally.gathering, SummedProfile)
            self.tally.gathering.take(total.profile)
        else:
            self.strategy.start(self.params, self.round)
            payload = params_to_bytes(total.delta)
            self.strategy.add(Update("", total.weight, codecs.get("raw32"), payload))
        for helper, devices in total.unopened:
            self._believe(BOXES, helper, devices, unmasking.saved.entries, now)
        self._unmasking = None
        self._in_vain.over()
        self._answered.learn(record)
        self._hear(unmasking, self.round)
        return record

    @property
    def _cost(self) -> str:
        """What a round whose sum is not opened has cost. With each one more the budget goes, without a model."""
        spent, pause_s = None if self.masked is None else self.masked.spent, self._in_vain.pause_s
        if spent is None:
            return ""
        text = f"; it has cost its epsilon all the same: {spent.epsilon:.3g} is spent"
        waits = f", so the next one waits {pause_s:g} s, or until the aggregator is started again"
        return text + waits * (pause_s > 0)

    def _not_opened(self, why: str, now: float) -> Closed:
        """The round is over without a model."""
        assert self._unmasking is not None and self.tally is not None
        unmasking, tally = self._unmasking, self.tally
        self._unmasking = None
        if unmasking.terms.noise.kind != "none":
            self._in_vain.add(unmasking.terms.helpers, why, unmasking.patience_s, now)
        self.earlier.refuse(tally)
        self._hear(unmasking, self.round)
        self._skip(unmasking, self.round, now)
        if tally.gathering is None:  # else its end is told with that of its orders
            text = f"round {self.round} abandoned: {why}{self._cost}"
            self._out.append(Note("warning", text, round=self.round))
        record, began_at = unmasking.saved.record, unmasking.began_at
        record = msgspec.structs.replace(
            record, state="abandoned", version=self.version, why=why, seconds=now - tally.opened_at,
            helpers_s=round(now - began_at, 3) if began_at is not None else 0.0,
        )  # fmt: skip
        return Closed(record, None, [])
