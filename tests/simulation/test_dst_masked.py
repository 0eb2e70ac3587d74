"""Schedules of the deterministic simulation whose rounds are masked.

Aggregator, devices and helper die, disks fail, the network repeats and loses, one device may seal nonsense. What is
committed is the exact sum of the devices that it names, with the noise that was drawn for it, and no round is opened
for two sets. Then guards are removed one at a time: the simulation, or a test of the guard, must notice. Guards of
noise are in test_dst_noise.py.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from dst.__main__ import failures
from guards import breaks
from masked_schedules import SCHEDULES, broken

from edgefl.coordinator.events import SaveAsk
from edgefl.coordinator.masked import unmasking
from edgefl.coordinator.masked.leads import Leads
from edgefl.coordinator.masked.summing import Summing
from edgefl.coordinator.masked.terms import MaskedTerms
from edgefl.coordinator.masked.unlisted import Unlisted
from edgefl.coordinator.masked.unmasking import Unmasking
from edgefl.coordinator.masked.unopened import Unopened
from edgefl.coordinator.state import CoordinatorState
from edgefl.coordinator.updates.masked_sum import MaskedSum
from edgefl.device import masked as device_masked
from edgefl.device.masked import Helpers
from edgefl.device.owner.consent import Consent
from edgefl.device.report import saved_update
from edgefl.device.seen import Seen
from edgefl.helper import asked as helper_asked
from edgefl.helper.events import SaveOpened
from edgefl.helper.helper import Helper
from edgefl.helper.state import State
from edgefl.masking import ring

CHUNK = 20


@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_i34_i35_masked_sums_are_exact_in_every_schedule(first):
    assert failures(range(first, first + CHUNK), masks=True) == []


def test_a_set_is_shown_to_the_helper_before_it_is_durable(monkeypatch):
    original = Summing._begin_unmasking

    def begin(self, *args):
        before, self._out = self._out, []
        original(self, *args)
        self._out = [*before, *sorted(self._out, key=lambda action: isinstance(action, SaveAsk))]

    monkeypatch.setattr(Summing, "_begin_unmasking", begin)
    assert broken() == "I35"


def test_an_answer_leaves_the_helper_before_it_is_durable(monkeypatch):
    original = Helper._open
    monkeypatch.setattr(
        Helper, "_open", lambda self, *args: sorted(original(self, *args), key=lambda a: isinstance(a, SaveOpened))
    )
    assert broken() == "I34"


def test_a_helper_opens_a_second_set_of_a_round(monkeypatch):
    """The aggregator forgets what it has asked for, and the helper what it has opened."""
    monkeypatch.setattr(State, "of_round", lambda *args: None)
    monkeypatch.setattr(helper_asked, "check_round", lambda *args: None)
    monkeypatch.setattr("edgefl.coordinator.state.CoordinatorState._asked_before", lambda self, asked: None)
    assert broken(300, known=87) in ("I35", "I34")


def test_a_vector_is_added_twice(monkeypatch):
    original = MaskedSum.add

    def add(self, device, payload, public):
        original(self, device, payload, public)
        found = self.entries[device]
        ring.add(
            self.sums[self.terms.group_of(device)], memoryview(payload)[-self.terms.packed_bytes :], self.terms.bits
        )
        self.entries[device] = found

    monkeypatch.setattr(MaskedSum, "add", add)
    assert broken(10) != ""


def test_a_restart_begins_with_the_first_clip_again(monkeypatch):
    original = CoordinatorState._learned

    def learned(self, recent):
        yield from original(self, recent)
        self.masked.clip = self.masked.settings.clip

    monkeypatch.setattr(CoordinatorState, "_learned", learned)
    assert broken(120, known=115) in ("I35", "I06")  # or a device drops what it has made under the terms of before


def test_a_device_that_seals_nonsense_is_not_barred(monkeypatch):
    monkeypatch.setattr(Unopened, "_believe", lambda *args: ([], ""))
    assert broken(20, known=4) == "I07"


def test_a_device_that_seals_nonsense_is_barred_and_stays_in_the_set(monkeypatch):
    """The round is abandoned, and no promise is broken: a test of its own says that it goes on."""
    monkeypatch.setattr(MaskedSum, "without", lambda self, devices: None)
    named = "coordinator/test_sealed_nonsense::test_one_device_that_seals_nonsense_costs_no_other_device_its_round"
    assert breaks(monkeypatch, named)


def test_a_device_that_a_helper_did_not_know_is_never_asked_again(monkeypatch):
    monkeypatch.setattr(Unlisted, "hear", lambda *args: [])
    assert broken(80, known=62) == "I07"


def test_devices_that_a_helper_does_not_know_are_asked_again_and_again(monkeypatch):
    """No promise is broken, and each round costs them an update: a test of its own says that it does not."""
    monkeypatch.setattr(Unlisted, "name", lambda *args: None)
    name = "test_it_is_asked_again_once_the_helper_has_a_newer_roster"
    assert breaks(monkeypatch, f"coordinator/test_unlisted::{name}")


LEADS = "coordinator/test_leads::test_"


def test_a_helper_is_always_believed_that_it_knows_more(monkeypatch):
    monkeypatch.setattr(Leads, "_may_lead", True)
    assert breaks(monkeypatch, f"{LEADS}no_helper_ends_a_federation_by_its_budget_once_it_has_opened_a_sum")


def test_no_helper_is_ever_believed_that_it_knows_more(monkeypatch):
    monkeypatch.setattr(Leads, "_may_lead", False)
    named = f"{LEADS}a_restored_aggregator_loses_one_round_and_not_as_many_as_its_backup_is_old"
    assert breaks(monkeypatch, named)


def test_a_helper_alone_has_rounds_left_out(monkeypatch):
    monkeypatch.setattr(Leads, "_accounts_for", lambda *args: math.inf)
    assert breaks(monkeypatch, "coordinator/test_doubts::test_the_operator_says_that_so_many_rounds_were_run")


def test_a_helper_alone_spends_a_budget(monkeypatch):
    monkeypatch.setattr(MaskedTerms, "doubt", lambda *args: "")
    assert breaks(monkeypatch, "coordinator/test_doubts::test_not_half_after_half_either")


def test_masks_are_not_taken_away(monkeypatch):
    monkeypatch.setattr(Unmasking, "opened", lambda self, place: ring.centre(self.saved.sums[place], self.terms.bits))
    assert broken(10) != ""


def test_what_is_added_and_what_is_shown_differ_by_one_device(monkeypatch):
    original = Summing._begin_unmasking

    def begin(self, masked_sum, *args):
        masked_sum.sums[0] += np.uint32(1)
        original(self, masked_sum, *args)

    monkeypatch.setattr(Summing, "_begin_unmasking", begin)
    assert broken(10) != ""


CONSENT = "device/test_masked_consent::test_"


def test_a_device_forgets_what_its_owner_demands(monkeypatch):
    monkeypatch.setattr(Consent, "refuses", lambda self, round, manifest, now: "")
    assert breaks(monkeypatch, f"{CONSENT}i36_no_downgrade_a_plain_round_is_refused")


def test_a_device_does_not_look_at_the_helpers_certificate(monkeypatch):
    monkeypatch.setattr(Helpers, "check", lambda self, *args: {})
    assert breaks(monkeypatch, f"{CONSENT}i36_another_helpers_key_is_refused")


def test_a_device_sends_what_it_has_masked_under_other_terms(monkeypatch):
    monkeypatch.setattr(saved_update, "_is_under", lambda saved, round: True)
    assert breaks(monkeypatch, f"{CONSENT}an_update_that_was_masked_under_other_terms_is_not_sent_for_these")


def test_epsilon_falls_with_a_new_epoch(monkeypatch):
    monkeypatch.setattr(Seen, "in_epoch", lambda self, serial, epoch: Seen(serial, epoch))
    assert breaks(monkeypatch, f"{CONSENT}i38_an_epsilon_that_falls_is_refused_in_a_new_epoch_too")


def test_an_update_is_not_bounded(monkeypatch):
    """I37: nothing is masked that has not been clipped, rounded and measured."""
    original = device_masked.quantize

    def quantize(delta, weight, terms, rng, scored):
        return original(delta, weight, msgspec.structs.replace(terms, norm2=2**60, clip=1e6), rng, scored)

    monkeypatch.setattr(device_masked, "quantize", quantize)
    assert breaks(monkeypatch, "simulation/test_masked_fleet::test_i37_what_is_masked_keeps_its_norm")


def test_check_coordinates_are_not_looked_at(monkeypatch):
    original = unmasking.mean

    def mean(total, terms):
        total[terms.at_checks] = total[terms.coordinates + 1]
        return original(total, terms)

    monkeypatch.setattr(unmasking, "mean", mean)
    named = "coordinator/test_masked_bad_input::test_an_answer_that_leaves_the_check_coordinates_wrong_ends_the_round"
    assert breaks(monkeypatch, named)


def test_a_masked_profile_is_longer_than_an_update_and_mutes_nobody():
    """In a small model: statistics of thirty columns take many more messages than its params do."""
    assert failures([59], masks=True) == []
