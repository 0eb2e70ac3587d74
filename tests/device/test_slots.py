"""Slots: which of them serves a round. That they become current with their update is in tests/daemons."""

from __future__ import annotations

import pytest
from machines import make_manifest
from msgspec.structs import replace

from edgefl.codecs.feedback import FEEDBACK_ROUNDS
from edgefl.device.slots import KEPT, Slot

MANIFEST = make_manifest()
SAME_RUN = make_manifest(part_bytes=MANIFEST.part_bytes - 1)
OTHER_RUN = make_manifest(run="1" * 16)
BLOB = bytes(range(24))


OLD = "too old, or of another run"


def unusable(name, manifest=MANIFEST, round=8, **changes):
    return replace(Slot.of(name, MANIFEST, 7, BLOB), **changes).unusable(name, manifest, round)


@pytest.mark.parametrize(("round", "there"), [(7, False), (6, False), (8, True), (57, True), (58, False)])
def test_a_residual_serves_the_rounds_after_its_own_for_a_while(round, there):
    assert FEEDBACK_ROUNDS == 50
    assert unusable("residual", round=round) == ("" if there else OLD)


@pytest.mark.parametrize("name", sorted(set(KEPT) - {"residual"}))
@pytest.mark.parametrize("round", [6, 8, 10_000])
def test_no_other_slot_expires(name, round):
    assert unusable(name, round=round) == ""


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("changes", [{"blob": BLOB[:-4]}, {"crc": 1}, {"blob": b"\1" + BLOB[1:]}], ids=str)
def test_a_damaged_slot_is_dropped(name, changes):
    assert unusable(name) == ""
    assert unusable(name, **changes) == "damaged"


@pytest.mark.parametrize("name", KEPT)
def test_a_residual_belongs_to_one_manifest_and_all_others_to_one_run(name):
    """An operator who changes the learning rate must not cost the devices what they know."""
    assert SAME_RUN.id != MANIFEST.id and SAME_RUN.run == MANIFEST.run
    assert unusable(name, SAME_RUN) == (OLD if name == "residual" else "")
    assert unusable(name, OTHER_RUN) == OLD
