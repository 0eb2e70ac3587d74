"""Rounds: how rounds open, close and are committed. No I/O. Part of RoundCoordinator.

waiting -> open -> (unmasking) -> evaluating -> (commit) -> waiting or open -> ... -> done
             └── too few reports at the last deadline: abandoned, the model stays as it is
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from ..history_record import RoundRecord
from ..machine import Note
from ..plural import plural
from ..settings import Mode
from . import opening as opens
from .closing import Candidate, Closed, Closing, at_deadline, conclude
from .devices.cohort import LIST_BYTES
from .events import Action, Answered, Commit, Evaluated, Finished, ReloadLate
from .masked.summing import Summing
from .opening import DEADLINES
from .profile.profiling import Profiling
from .updates.tally import Tally
from .viewers.watching import Watching

MASKED_BYTES = 7 * 1024  # of a round's message, for terms and the helpers' certificates


class Rounds(Watching, Profiling, Summing):
    """The coordinator's rounds; each method adds what the host has to do to `_out`."""

    def _maybe_open(self, now: float) -> None:
        """Open the next round if enough devices are there; finish if there is no next round."""
        self._carry_out_order(now)
        self._adopt_settings()
        if self.phase != "waiting" or not self.fence.held:
            return
        self._pass_over()
        done = ""
        if (rounds := self.config.rounds) is not None and self.round > rounds:
            done = f"{plural(rounds, 'round')} {'is' if rounds == 1 else 'are'} done"
        if self._waits_for_operator("; ".join(self._doubts) or (self._misled if done else ""), now):
            return
        if end := done or self._beyond_budget():
            self._finish(end, now)
            return
        if self._inquires(self._next_mode(), now):
            return
        look = self.readiness.look(now, first=self.version == 0 and self.tally is None)
        self._out += look.notes
        if look.may_open and self._pass_over_rest():
            self._maybe_open(now)
            return
        if look.may_open:
            self._open(self.presence.present(), now)
            return
        if look.tell and not self._announced_wait:
            self._announced_wait = True
            self._out.append(self._publish_round(now))
        if look.ask:
            self._out.append(self.announcer.publish_manifest())

    def _waits_for_operator(self, why: str, now: float) -> bool:
        """Whether the federation waits for its operator instead of ending. `why` says what for; "" if it need not wait.
        It is said once."""
        new, self._asks_operator = why and self._asks_operator != why, why
        if new:
            self._refuse_profile_orders(why)
            self._out.append(Note("error", f"this federation waits for its operator: {why}"))
        if why and not self._announced_wait:
            self._announced_wait = True
            self._out.append(self._publish_round(now))
        return bool(why)

    def _next_mode(self) -> Mode:
        """The mode of the next round."""
        return "profile" if self.profiles.wants(self.params) else self.config.mode_of(self.round)

    def _beyond_budget(self) -> str:
        """Why the next round would spend too much; "" if it would not. Profiles that would are refused first."""
        if self.masked is None:
            return ""
        if self.profiles.orders and (refusal := self.masked.refusal(self.round, self._next_mode())):
            self._refuse_profile_orders(refusal)
        return self.masked.refusal(self.round, self._next_mode())

    def _pass_over(self) -> None:
        """Find the number of the next round. Rounds that have had noise, or were opened, as a helper tells, are passed
        over; and so are those for which devices would be enough if so many did not rest: rest ends by a round's
        number."""
        if self.masked is not None and self.masked.mechanism is not None:
            self.round = max(self.round, self.masked.next_round)
        self._leave_out_told()
        self.round = first = max(self.round, self._least_round)
        least = max(1, self.config.min_reports)
        self._rest(least)
        while self.presence.count < least <= self.presence.count_with_rest:
            self.round += 1
            self._rest(least)
        if self.round > first:
            text = f"round {self.round} is next, since too few devices are there that do not rest before it"
            self._out.append(Note("info", text, round=self.round))

    def _rest(self, least: int) -> None:
        """Leave out the devices that rest in this round, and those that a helper does not know, unless too few would be
        left: then a round tells that helper's roster."""
        resting = self.resting.at(self.round)
        self.presence.rest(resting | self.unlisted.devices)
        if self.presence.count < least:
            self.presence.rest(resting)

    def _pass_over_rest(self) -> bool:
        """Pass over rounds in which too many of the devices that are worth waiting for rest, if enough of them do not
        in a later one; whether any was. Such a round would end without enough reports. The devices that have reported
        would rest after it, and never be in step with the others again."""
        resting = self.resting.at(self.round)
        if not resting:
            return False
        known = [device for device in self.presence.could_ask() if device not in self.unlisted.devices]
        least = max(1, self.config.min_reports)
        ends = sorted(map(self.resting.until, self.standing.able(known, least, DEADLINES * self.config.deadline_s)))
        if len(ends) < least or ends[least - 1] <= self.round:
            return False
        self.round = ends[least - 1]
        text = f"round {self.round} is next, since too few devices that rounds wait for do not rest before it"
        self._out.append(Note("info", text, round=self.round))
        return True

    def _open(self, present: list[str], now: float) -> None:
        config, mode = self.config, self._next_mode()
        masked = self._masked_sum(mode, present)
        gathering = self.profiles.open(None if masked is None else masked.terms) if mode == "profile" else None
        if gathering is not None:
            config = self.profiles.rounds(config, gathering)
        run = self.announcer.manifest.run
        opening = opens.plan(
            config, self.standing, run=run, round=self.round, present=present, rng=self._rng,
            closed=self.presence.hides, choose=self._choose if mode == "train" and self.selection else None,
            list_bytes=LIST_BYTES - (MASKED_BYTES if self.masked else 0),
        )  # fmt: skip
        pacing = self.pace.plan(len(opening.asked), len(present), opening.deadline_s)
        self.tally = Tally(
            opening, round=self.round, version=self.version, mode=mode, opened_at=now, pacing=pacing,
            intake=self._make_intake(self.round, self.version, pacing.unasked, mode),
            any_round=config.mode == "async", resumed=self.tally is None and self.fence.attempt > 1,
            gathering=gathering, keeps_losses=self.selection is not None, masked=masked,
        )  # fmt: skip
        self.admission.open(self.round)
        self.phase, self._announced_wait, self._asks_operator = "open", False, ""
        self.readiness.opened(now)
        if mode == "train":
            self.strategy.shown(self.announcer.shown_sides)
            self.strategy.start(self.params, self.round)
        what = "" if gathering is None else " for statistics of their columns"
        text = f"round {self.round} open: {len(opening.asked)} of {len(present)} devices asked{what}"
        self._out.append(Note("info", text, round=self.round))
        self._out += self._waits.note(self.round, opening)
        if self.presence.wants_manifest():
            self._out.append(self.announcer.publish_manifest())
        self._out.append(self._publish_round(now))
        self._out += self.reception.ask_held(self.tally)
        self._out += self.fence.look_again()
        if mode == "train" and config.late_window:
            self._out.append(ReloadLate())

    def _choose(self, devices: list[str], wanted: int) -> list[str]:
        assert self.selection is not None
        return self.selection.choose(devices, wanted, self.round, self._rng)

    def _maybe_close(self, now: float) -> None:
        """Close before the deadline: at the goal, when the round waits for no device any more, or has no patience."""
        tally = self.tally
        if self.phase != "open" or tally is None or not self.fence.held or not self._is_enough(tally):
            return
        if tally.complete or now >= tally.patient_until:
            self._close(tally, now)

    def _on_deadline(self, tally: Tally, now: float) -> None:
        """Close; or go on with the same round, if devices at work can bring what it lacks."""
        at_work = at_deadline(tally, self.standing, self.presence.present(), deadline_s=self.config.deadline_s, now=now)
        enough, least = self._is_enough(tally), self._config_of(tally).min_reports
        if enough or tally.reports + len(at_work) < least:
            self._close(tally, now)
        else:
            tally.extend(now, self.config.deadline_s)
            self._out += [tally.goes_on(least, at_work), self._publish_round(now)]
        if not enough and self.phase != "done":
            # A full queue may have dropped the round, or a status: devices that are there answer with theirs.
            self._out.append(self.announcer.publish_manifest())

    def _close(self, tally: Tally, now: float) -> None:
        self._out += self.reception.settle(tally, now)
        least = self._config_of(tally).min_reports
        record = tally.record(self._update_size, least, now)
        record = msgspec.structs.replace(record, attempt=self.fence.attempt)
        if record.state == "abandoned":
            why = self.readiness.absence.why(tally, least, now)
            record = msgspec.structs.replace(record, why=why)
            if tally.masked is not None and tally.masked.left_out:
                self.unlisted.clear()  # a helper tells its roster where it is asked, and none was
        if record.state != "abandoned" and tally.masked is not None:
            record = msgspec.structs.replace(record, missed=self.earlier.close(tally, abandoned=False))
            self._begin_unmasking(tally.masked, record, now)
            return
        candidate, record = self._conclude(tally, record)
        missed = self.earlier.close(tally, abandoned=record.state == "abandoned")
        record = msgspec.structs.replace(record, missed=missed)
        if candidate is None:
            self._next(Closed(record, None, tally.late_to_drop(committed=False)), now)
        else:
            self._evaluate(Closing(candidate, record, tally))

    def _conclude(self, tally: Tally, record: RoundRecord) -> tuple[Candidate | None, RoundRecord]:
        """The model that the round gives, if it gives one, and its record."""
        if tally.gathering is not None:
            return self._conclude_profile(tally.gathering, record)
        candidate, record, notes = conclude(tally, self.strategy, record)
        self._out += notes
        if candidate is not None:
            candidate = replace(candidate, params=self.profiles.kept(candidate.params, self.params))
        return candidate, record

    def _on_sum(self, found: Closed | RoundRecord | None, now: float) -> None:
        """What has become of the sum of a masked round; None: it is not open yet."""
        tally = self.tally
        if isinstance(found, RoundRecord) and tally is not None:
            candidate, record = self._conclude(tally, found)
            if candidate is not None:
                self._evaluate(Closing(candidate, record, tally))
                return
            if tally.gathering is None:
                self.earlier.refuse(tally)
            found = Closed(record, None, [])
        elif isinstance(found, Closed) and tally is not None and tally.gathering is not None:  # orders wait for it
            found = replace(found, record=self._conclude_profile(tally.gathering, found.record)[1])
        if isinstance(found, Closed):
            self._next(found, now)

    def _on_evaluated(self, result: Evaluated, now: float) -> None:
        if (closed := self._judge(result, now)) is not None:
            self._next(closed, now)

    def _on_jury(self, closed: Closed | None, now: float) -> None:
        """The canaries' word; None: it is still to come. An order ends their work."""
        if closed is None and self.phase == "judging" and self._orders and self.fence.held:
            closed = self._overrule(now)
        if closed is not None:
            self._next(closed, now)

    def _next(self, closed: Closed, now: float) -> None:
        """Commit, announce, and go on."""
        record, params = closed.record, closed.params
        state = {} if params is None else self.strategy.state()
        record = msgspec.structs.replace(
            record, closed_at=round(self.clock.at(now) or 0), budgets=self.presence.budgets(),
            refused=self.admission.refused.take(), barred=self.admission.barred,
            signer_epoch=self._answered.signer_epoch, led=self._answered.led,
        )  # fmt: skip
        if params is not None:
            self.signing.advance(params, record.version)
        record = self.signing.record(record)
        record = self._without_forgotten(record)
        self._learn(record)
        self._out += self.admission.suspects()
        self.reception.late_table.drop(closed.drop)
        clip = None if self.masked is None else self.masked.moved
        self._out.append(Commit(record, params, closed.drop, state, clip))
        self._answer_profile_orders()
        if closed.order:
            text = f"version {record.version} has the model of version {record.restored}"
            self._out.append(Answered(closed.order, True, text))
        superfluous: list[Action] = []
        self.phase, self.round = "waiting", self.round + 1
        if params is not None:
            self.params, self.version = params, record.version
            added, superfluous = self.announcer.advance(params, self.version)
            self._out += added
        target = self.config.target_accuracy
        if target is not None and params is not None and (record.accuracy or 0.0) >= target:
            self._finish(f"accuracy {record.accuracy:.4f} has reached the target {target:g}", now)
        else:
            self._maybe_open(now)
        self._out += superfluous  # after the round that needs them no more

    def _learn(self, record: RoundRecord) -> None:
        """Tell the round's record to all that go by earlier rounds."""
        self._answered.learn(record)
        self.admission.influence.learn(record)
        self.resting.learn(record)
        if self.masked is not None:
            self.masked.learn(record)
        if self.selection is not None:
            self.selection.learn(record)
        if self.roll is not None:
            self.roll.learn(record, len(self.tally.opening.asked) if self.tally is not None else 0)

    def _finish(self, reason: str, now: float) -> None:
        self.phase, self.tally, self._ended = "done", None, reason
        self._out.append(self._publish_round(now))
        self._show_last("done", now)
        self._out += self.fence.release()
        self._out.append(Finished(reason))
