"""A device whose own model has diverged begins anew: it would fail in every round to come."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from machines import PARAMS, make_manifest
from personal_work import KEEPS_BIAS, slots_of, values, work

from edgefl.core.trainer import Diverged
from edgefl.device import personal
from edgefl.device.slots import Slot
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import TrainSettings
from edgefl.strategies.local import LocalRule

ANEW = "begins anew with the received model"
TRAIN = TrainSettings(lr=0.05, epochs=3)
RULES = {
    "mask": msgspec.structs.replace(KEEPS_BIAS, personal=[0]),
    "ditto": make_manifest(local=LocalRule("ditto", {"lam": 0.1}), requires=["local"], holdout=0.4, train=TRAIN),
    "apfl": make_manifest(local=LocalRule("apfl", {"alpha": 0.5, "adapt": 0.0}), requires=["local"], holdout=0.4,
                          train=TRAIN),
}  # fmt: skip


HEAD = {"mask": 4, "ditto": 0, "apfl": 0}  # bytes before the numbers


def diverged(name: str) -> dict[str, Slot]:
    """What a device has of its own, all finite, and of a size from which training ends in infinity."""
    blob = work(RULES[name])[0].slots["personal"]
    numbers = np.frombuffer(blob, "<f4", offset=HEAD[name]).copy()
    numbers[:990] = 3e38
    return {"personal": Slot.of("personal", RULES[name], 1, blob[: HEAD[name]] + numbers.tobytes())}


@pytest.mark.parametrize("name", RULES)
def test_a_device_whose_own_params_have_diverged_begins_anew_and_says_so_once(name, caplog):
    manifest = RULES[name]
    made, verdict = work(manifest, diverged(name), round=2)
    fresh, _ = work(manifest, round=2)
    assert [record.message for record in caplog.records].count(f"training from what this device has of its own "
                                                               f"diverged: it {ANEW}") == 1  # fmt: skip
    skip = UpdateHeader.from_bytes(made.blob).size
    assert made.blob[skip:] == fresh.blob[UpdateHeader.from_bytes(fresh.blob).size :]
    assert made.slots == fresh.slots and not verdict.own
    caplog.clear()
    work(manifest, slots_of(made, manifest, 2), round=3)
    assert ANEW not in caplog.text


def test_where_the_received_model_diverges_too_the_round_fails_and_nothing_is_said_of_beginning_anew(caplog):
    hot = msgspec.structs.replace(RULES["mask"], train=TrainSettings(lr=1e3, epochs=30, weight_decay=1e3))
    with pytest.raises(Diverged):
        work(hot, diverged("mask"), round=2)
    assert ANEW not in caplog.text


def test_params_that_overflow_are_not_kept():
    own = personal.slot_of(KEEPS_BIAS, np.full(1000, 3e38, np.float32), np.full(1000, 3e38, np.float32))
    assert own == {}
    kept = personal.slot_of(KEEPS_BIAS, PARAMS, PARAMS)
    assert np.isfinite(values(kept["personal"])).all()


def test_a_fine_tuned_model_that_diverges_leaves_the_device_the_received_one(caplog):
    rule = LocalRule("fine-tune", {"epochs": 30.0, "lr": 1e6})
    train = TrainSettings(lr=1e-4, epochs=3, weight_decay=1e3)  # which at the first rate ends in infinity
    hot = make_manifest(local=rule, requires=["local"], holdout=0.4, train=train)
    made, verdict = work(hot)
    assert UpdateHeader.from_bytes(made.blob).num_examples > 0
    assert not verdict.own and verdict.params is not None
    assert "keeps the received one" in caplog.text


def test_a_device_whose_own_params_have_overflowed_has_none_and_says_so(monkeypatch, caplog):
    before, _ = work()
    monkeypatch.setattr(personal, "slot_of", lambda manifest, params, delta: {})
    made, _ = work(slots=slots_of(before), round=2)
    assert "personal" not in made.slots and "not finite any more" in caplog.text
