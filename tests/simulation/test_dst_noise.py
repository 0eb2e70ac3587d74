"""Noise in the schedules of masked rounds: guards that are removed, one at a time, must be noticed. The schedules
themselves are among those of test_dst_masked.py."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from dst import masked
from dst.noise import Noisy
from masked_schedules import SCHEDULES, broken

from edgefl.coordinator.devices.presence import Presence
from edgefl.coordinator.devices.resting import Resting
from edgefl.coordinator.masked.terms import MaskedTerms
from edgefl.coordinator.rounds import Rounds
from edgefl.coordinator.updates.masked_sum import MaskedSum
from edgefl.device.trust import Pinned
from edgefl.helper.events import SaveOpened
from edgefl.helper.helper import Helper
from edgefl.helper.noise import Draw, Drawn
from edgefl.helper.opening import Job
from edgefl.privacy import correlated
from edgefl.privacy.correlated import Memory
from edgefl.privacy.ledger import Ledger

pytest.importorskip("dp_accounting")


def test_the_schedules_have_every_kind_of_noise():
    drawn = [masked.draw(seed).noisy for seed in range(SCHEDULES)]
    kinds = {kind: [noisy for noisy in drawn if noisy.kind == kind] for kind in ("none", "independent", "banded")}
    assert all(len(found) >= SCHEDULES // 6 for found in kinds.values())
    assert {noisy.separation for noisy in kinds["independent"]} == {1, 2, 3, 4}
    assert len({(noisy.separation, noisy.band, noisy.rounds) for noisy in kinds["banded"]}) >= 10
    assert min(sum(noisy.restored for noisy in drawn), sum(noisy.turns for noisy in drawn)) >= SCHEDULES // 6


def test_noise_changes_nothing_else_of_a_schedule(monkeypatch):
    drawn = [masked.draw(seed) for seed in range(20)]
    monkeypatch.setattr(Noisy, "draw", classmethod(lambda cls, seed: cls()))
    for seed, one in enumerate(drawn):
        plain, config = masked.draw(seed), msgspec.structs.replace(one.config, rounds=None)
        assert one.noisy.turns or plain.config == config
        assert (plain.devices, plain.lasting) == (one.devices, one.lasting)
        assert plain.faults == one.faults[: len(plain.faults)] and plain.manifest == one.manifest


def test_noise_is_used_twice(monkeypatch):
    original, first = Draw.__call__, {}

    def draw(self, terms, purpose):
        first[terms.run] = first.get(terms.run) or original(self, terms, purpose)
        return first[terms.run]

    monkeypatch.setattr(Draw, "__call__", draw)
    assert broken(20) == "I38"


def test_the_noise_of_the_round_before_is_used_again_for_another_set(monkeypatch):
    original = correlated.next_round

    def next_round(plan, memory, round, purpose, source):
        if memory.past and round > memory.round:
            (w, *_) = memory.past.values()
            return np.rint(w).astype(np.int64), Memory(plan, memory.first, purpose, {round: w})
        return original(plan, memory, round, purpose, source)

    monkeypatch.setattr("edgefl.helper.noise.next_round", next_round)
    assert broken(20) == "I38"


def test_noise_is_left_out(monkeypatch):
    def none(self, draw):
        return Drawn(np.zeros(self.terms.length, np.int64), draw(self.terms, self.set_digest).memory)

    monkeypatch.setattr(Job, "_noise", none)
    assert broken(20) == "I35"


def test_correlated_noise_takes_nothing_back(monkeypatch):
    monkeypatch.setattr(correlated, "coefficients", lambda band: np.eye(1, band)[0])
    assert broken(40) in ("I35", "I38")


def test_what_correlated_noise_needs_of_earlier_rounds_is_not_saved(monkeypatch):
    original = Helper._open

    def without(action):
        return SaveOpened(action.state, action.answer) if isinstance(action, SaveOpened) else action

    monkeypatch.setattr(Helper, "_open", lambda self, *args: [*map(without, original(self, *args))])
    assert broken(40) == "I35"


def test_nobody_heeds_the_separation(monkeypatch):
    original = Pinned.check_terms

    def check(self, terms, round, now):
        noise = msgspec.structs.replace(terms.noise, separation=0)
        original(self, msgspec.structs.replace(terms, noise=noise), round, now)

    monkeypatch.setattr(Resting, "at", lambda self, round: frozenset())
    monkeypatch.setattr(Pinned, "check_terms", check)
    assert broken(40) == "I38"


def test_a_device_that_was_wiped_counts_before_its_time(monkeypatch):
    original = MaskedSum.__init__
    monkeypatch.setattr(MaskedSum, "__init__", lambda self, *args: original(self, *args[:2]))
    assert broken(500, known=57) == "I38"


def test_rounds_do_not_wait_until_enough_devices_have_rested(monkeypatch):
    monkeypatch.setattr(Rounds, "_pass_over_rest", lambda self: False)
    assert broken(200, known=102) == "I07"


def test_a_device_that_rests_is_taken_to_be_away_until_its_pause_is_over(monkeypatch):
    monkeypatch.setattr(Presence, "_is_wanted", lambda self, status: status.present)
    monkeypatch.setattr(masked, "losses_of", lambda seed: ())  # few schedules show it, and this one without losses
    assert broken(known=1004334) == "I07"


def test_a_set_is_asked_for_that_is_not_paid_for(monkeypatch):
    monkeypatch.setattr(MaskedTerms, "spend", lambda self, terms: [])
    assert broken(20) == "I38"


def test_what_was_announced_is_forgotten(monkeypatch):
    monkeypatch.setattr(Ledger, "tell", lambda self, epsilon: self)
    assert broken(100, known=79) == "I38"


def test_a_device_is_taken_to_be_in_the_first_round_alone(monkeypatch):
    original = Ledger.spend

    def spend(self, noise, run, round, purpose):
        return msgspec.structs.replace(original(self, noise, run, round, purpose), times=1)

    monkeypatch.setattr(Ledger, "spend", spend)
    assert broken(40) in ("I38", "I07")  # too little is told, or devices that count more refuse what is told
