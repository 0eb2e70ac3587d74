"""The aggregator's database goes back to a backup, or is lost, amid all other faults (dst/losses.py): masked schedules
beyond those of test_dst_masked.py. Then guards are removed one at a time, and the simulation must notice."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from dst import masked
from dst.__main__ import failures
from dst.losses import COUNTED, LOST, RESTORED, is_lossy
from masked_schedules import SCHEDULES, broken

from edgefl.coordinator.devices.presence import Presence
from edgefl.coordinator.masked import inquiring
from edgefl.coordinator.masked.inquiring import Inquiring
from edgefl.coordinator.masked.leads import Leads
from edgefl.coordinator.masked.summing import Summing
from edgefl.coordinator.masked.terms import MaskedTerms
from edgefl.coordinator.updates.reception import Reception
from edgefl.device.listening import Listening
from edgefl.device.report import saved_update
from edgefl.device.seen import Seen
from edgefl.helper.state import State

pytest.importorskip("dp_accounting")

LOSSY = [seed for seed in range(SCHEDULES, 3 * SCHEDULES) if is_lossy(masked.draw(seed))]


def test_the_schedules_have_losses_with_every_kind_of_noise_and_with_every_other_fault():
    drawn = [masked.draw(seed) for seed in LOSSY]
    assert 2 * SCHEDULES // 4 <= len(LOSSY) <= SCHEDULES
    assert min(Counter(schedule.noisy.kind for schedule in drawn).values()) >= len(LOSSY) // 8
    together = Counter(kind for schedule in drawn for kind in schedule.faults)
    assert min(together.values()) >= len(LOSSY) // 8 and "restored helper" in together


@pytest.mark.parametrize("part", range(4))
def test_i34_i35_i38_hold_where_the_aggregators_database_goes_back_or_is_lost(part):
    seen: Counter[str] = Counter()
    seeds = LOSSY[part::4]
    assert failures(seeds, True, seen) == []
    assert seen[RESTORED] >= len(seeds) // 3 and seen[LOST] >= len(seeds) // 6
    assert seen[COUNTED] >= len(seeds), "what happens afterwards is looked at"


def test_a_restored_aggregator_asks_nobody_before_its_first_round_with_noise(monkeypatch):
    monkeypatch.setattr(Inquiring, "_inquires", lambda self, mode, now: False)
    assert broken(200, known=11) in ("I38", "I35")


def test_a_restored_aggregator_takes_its_round_numbers_again(monkeypatch):
    monkeypatch.setattr(Leads, "_skip", lambda self, *args: None)
    assert broken(200, known=7) == "I35"


def test_a_restored_aggregator_keeps_to_its_own_ledger(monkeypatch):
    monkeypatch.setattr(MaskedTerms, "hear", lambda self, epsilon, round: [])
    assert broken(200, known=165) == "I38"


def test_no_helper_is_ever_believed_that_it_knows_more(monkeypatch):
    monkeypatch.setattr(Leads, "_may_lead", False)
    assert broken(200, known=11) in ("I35", "I38")


def test_a_helper_forgets_the_newest_round_that_it_has_opened(monkeypatch):
    monkeypatch.setattr(State, "newest_of", lambda self, run: 0)
    assert broken(200, known=7) == "I35"


def test_a_sum_that_was_asked_for_before_the_loss_passes_for_one_of_this_epoch(monkeypatch):
    original = Summing._add_total

    def add(self, *args):
        record = msgspec.structs.replace(original(self, *args), signer_epoch=self.signing.epoch)
        self._answered.learn(record)
        return record

    monkeypatch.setattr(Summing, "_add_total", add)
    assert broken(700, known=644) in ("I38", "I35", "I07")


def test_devices_forget_in_a_new_epoch_what_they_were_told(monkeypatch):
    monkeypatch.setattr(Seen, "in_epoch", lambda self, serial, epoch: Seen(serial, epoch, root=self.root))
    assert broken(200, known=99) == "I38"


def test_devices_go_on_with_what_they_have_made_in_the_epoch_before(monkeypatch):
    monkeypatch.setattr(Listening, "_start_over", lambda self: None)
    assert broken(200, known=39) != ""


def test_devices_of_a_sum_that_nobody_remembers_do_not_rest(monkeypatch):
    def leave_out(self, last, why):
        self._answered.led, self._least_round = True, last + 1
        self._out += self.masked.leave_out(last)

    monkeypatch.setattr(Leads, "_leave_out_rounds", leave_out)
    assert broken(known=1005105) == "I38"


def test_what_the_operator_says_counts_only_where_a_helper_says_it_too(monkeypatch):
    monkeypatch.setattr(Leads, "_leave_out_told", lambda self: None)
    assert broken(known=1007916) == "I35"


def test_a_manifest_that_somebody_has_replaced_is_not_published_again(monkeypatch):
    monkeypatch.setattr(Presence, "wants_manifest", lambda self: False)
    assert broken(known=1005443) == "I07"


def test_a_late_update_that_is_too_long_is_blamed_on_its_device(monkeypatch):
    def blame(self, error, *args):
        raise error

    monkeypatch.setattr(Reception, "_of_another_kind", blame)
    assert broken(known=1007029) == "I07"


def test_an_answer_to_an_earlier_question_passes_for_one_to_this(monkeypatch):
    monkeypatch.setattr(inquiring, "derived_seed", lambda *parts: 1)
    assert broken(known=2001835) == "I35"


def test_an_update_is_dropped_as_soon_as_a_later_round_is_named(monkeypatch):
    monkeypatch.setattr(saved_update, "_may_be_next", lambda saved, waiting: False)
    assert broken(known=2003169) == "I06"
