"""Masked profile rounds: what comes out is what devices would have told in the clear, and only as a sum."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from machines import commit_of, feed, of, run_out, status
from masked_profiles import (
    FEDERATED,
    MANIFEST,
    MODEL,
    PRIVACY,
    SCALING,
    data,
    make_profiled,
    open_profile,
    parts,
    profile_maker,
    profile_round,
    told,
)
from masked_rounds import answer_of, asked, make_helper, masked_blob, nothing_known, resigned, round_in, saved_in

from edgefl.coordinator.events import Answered, AskProfile, SaveProfile
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.coordinator.profile.gathering import Gathering
from edgefl.coordinator.updates.credits import header_for
from edgefl.device.columns.statistics import of_examples
from edgefl.device.owner.policy import OPEN
from edgefl.errors import PolicyError, ProtocolError
from edgefl.machine import Connected, Note, Tick
from edgefl.masking import profile as masking
from edgefl.masking import ring
from edgefl.masking.update import read
from edgefl.privacy.ledger import Ledger
from edgefl.profiles import Profile
from edgefl.protocol.statistics import encode
from edgefl.protocol.terms import Terms
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import FeatureSettings
from edgefl.trust.ed25519 import SIGNATURE_BYTES

SCALED = SCALING.into(MODEL.params, np.ones(3), np.full(3, 0.5))


def clear(devices: str, features=FEDERATED) -> Profile:
    """What the same devices tell where nothing is masked, and no influence bounded."""
    gathering = Gathering(MODEL.plan, features, bounded=False)
    for device in devices:
        x, y = data(device)
        header = UpdateHeader(len(x), 0, 0.0, 0, 0, is_profile=True)
        gathering.add(header, memoryview(encode(of_examples(MODEL.plan, x, y))))
    return gathering.result(1)


def closed(devices: str = "abcd", **options):
    """All have reported: the coordinator waits for its helper. With the round, its terms, and what it did."""
    coordinator, round, terms = open_profile(*devices, **options)
    out = []
    for device in devices:
        out += feed(coordinator, *parts(round, device), now=1.0)
    assert coordinator.phase == "unmasking"
    return coordinator, round, terms, out


def played(devices: str = "abcd", **options):
    """The whole round: coordinator and what it did at its end."""
    coordinator, _, _, out = closed(devices, **options)
    return coordinator, feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)


def test_it_comes_before_the_first_round_that_trains_and_its_sums_are_those_in_the_clear():
    _, round, terms = open_profile("a", "b", "c", "d")
    assert (round.mode, round.requires, round.round, round.version) == ("profile", ["profile", "masked"], 1, 0)
    assert terms.profile is not None and (terms.profile.columns, terms.profile.labels, terms.profile.bins) == (3, 3, 4)
    assert (terms.most, terms.least) == (12, 3), "as many as there may be, not only the share of a round that trains"
    _, out = played()
    record, params = commit_of(out).record, commit_of(out).params
    assert (record.state, record.version, record.profile, record.train_loss) == ("committed", 1, True, None)
    assert (record.devices, record.num_examples, record.helped) == (list("abcd"), 160, {"north": 1})
    found, expected = of(out, SaveProfile)[0].profile, clear("abcd")
    assert found.masked and not found.bounded and found.version == 1
    assert (found.devices, found.examples, found.labels) == (4, 160, expected.labels)
    for ours, theirs in zip(found.columns, expected.columns, strict=True):
        assert (ours.devices, ours.count, ours.low, ours.high) == (4, 160, theirs.low, theirs.high)
        assert ours.bins == theirs.bins
        assert np.isclose(ours.mean, theirs.mean, rtol=1e-12) and np.isclose(
            ours.deviation, theirs.deviation, rtol=1e-9
        )
    everything = np.concatenate([data(device)[0] for device in "abcd"]).astype(np.float64)
    assert np.allclose(params[SCALING.mean], everything.mean(0), rtol=1e-6)
    assert np.allclose(params[SCALING.scale], 1 / everything.std(0), rtol=1e-5)
    assert np.array_equal(params[: SCALING.mean.start], MODEL.params[: SCALING.mean.start])
    following = round_in(out)
    assert (following.mode, following.requires, following.round, following.version) == ("train", ["masked"], 2, 1)
    assert Terms.read(following.terms).profile is None


def test_i39_what_comes_before_the_opening_has_nothing_of_a_devices_statistics():
    """Of all that the aggregator receives: a device's masked vector looks the same whatever its table, and no part of
    it is the count that the device would have told."""
    _, round, terms = open_profile("a", "b", "c")
    assert terms.profile is not None
    q = masking.tell(of_examples(MODEL.plan, *data("a")), 40, terms)
    statistics = of_examples(MODEL.plan, *data("a"))
    blob = told(round, "a")
    header = UpdateHeader.from_bytes(blob)
    assert msgspec.structs.replace(header, size=UpdateHeader.SIZE) == UpdateHeader.masked(profile=True)
    payload = read(memoryview(blob)[header.size :], terms)
    seen = ring.unpack(payload.packed, terms.length, terms.bits)
    as_sent = ring.centre(seen, terms.bits)
    assert (as_sent == q).sum() <= 2, "3144 numbers of 32 bits: none but by chance"
    with pytest.raises(ProtocolError):
        masking.read(as_sent, terms)
    for piece in (encode(statistics), np.asarray(q, "<i4").tobytes(), data("a")[0].tobytes()):
        assert piece[:64] not in blob and piece[-64:] not in blob
    bits = np.unpackbits(np.frombuffer(bytes(payload.packed), np.uint8))
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(bits)), "uniform, as far as one bit at a time can tell"
    other = told(round, "a", (np.zeros((40, 3), np.float32), np.zeros(40, np.int64)))
    assert len(other) == len(blob), "the length says nothing either"
    again = told(round, "a", seed="again")
    assert bytes(read(memoryview(again)[header.size :], terms).packed) != bytes(payload.packed), "fresh masks"


def test_i39_nothing_of_one_device_is_on_the_aggregators_disk():
    _, _, terms, out = closed("abcd")
    saved = saved_in(out)
    opened = ring.centre(saved.sums[0], terms.bits)
    with pytest.raises(ProtocolError):
        masking.read(opened, terms)
    assert saved.record.num_examples == 0 and saved.record.profile
    helper = make_helper()
    answer_of(helper, asked(out))
    told_helper = b"".join(message.payload for message in asked(out))
    for device in "abcd":
        x, y = data(device)
        pieces = encode(of_examples(MODEL.plan, x, y)), x.tobytes()
        assert not any(piece[:32] in told_helper or piece[:32] in saved.to_bytes() for piece in pieces)


def test_bins_and_labels_of_few_devices_are_left_out_as_ever():
    features = FeatureSettings("federated", min_devices=3)
    _, out = played("abcd", features=features)
    found, expected = of(out, SaveProfile)[0].profile, clear("abcd", features)
    assert [column.bins for column in found.columns] == [column.bins for column in expected.columns]
    assert all(bin.devices >= 3 for column in found.columns for bin in column.bins) and found.min_devices == 3
    assert any(
        len(column.bins) < len(other.bins) for column, other in zip(found.columns, clear("abcd").columns, strict=True)
    )


def test_a_column_of_which_too_few_devices_have_values_stays_as_it_is():
    coordinator, round, _ = open_profile(*"abc")
    out = []
    for device in "abc":
        x, y = data(device)
        x[:, 1] = np.nan if device != "a" else x[:, 1]
        out += feed(coordinator, *parts(round, device, told(round, device, (x, y))), now=1.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    profile = of(out, SaveProfile)[0].profile
    assert [column.column for column in profile.columns] == [0, 2]
    params = commit_of(out).params
    assert (params[SCALING.mean][1], params[SCALING.scale][1]) == (0.0, 1.0)


def test_an_order_only_looks_and_devices_lose_nothing_by_it():
    coordinator = make_profiled(features=FeatureSettings(), params=SCALED)
    first = round_in(feed(coordinator, *map(status, "abcd"), Connected()))
    assert first.mode == "train"
    feed(coordinator, AskProfile("order-1"))
    out = run_out(coordinator)
    round = round_in(out)
    assert (round.mode, round.round) == ("profile", 2)
    out = []
    for device in "abcd":
        out += feed(coordinator, *parts(round, device), now=200.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=201.0)
    assert of(out, Answered) == [Answered("order-1", True, "round 2 has told the profile")]
    record = commit_of(out).record
    assert (record.state, record.version, record.profile, commit_of(out).params) == ("evaluated", 0, True, None)
    assert of(out, SaveProfile)[0].profile.version is None and record.num_examples == 160
    assert round_in(out).mode == "train"


def test_a_silent_helper_abandons_it_and_answers_its_orders():
    coordinator, _, _, _ = closed()
    feed(coordinator, AskProfile("order-1"))
    out = []
    while coordinator.phase == "unmasking":
        out += feed(coordinator, Tick(), now=coordinator.wake_at)
    record = commit_of(out).record
    assert (record.state, record.profile, record.version, commit_of(out).params) == ("abandoned", True, 0, None)
    assert "no answer of helper north" in record.why and not of(out, SaveProfile)
    (answer,) = of(out, Answered)
    assert (answer.order, answer.done) == ("order-1", False) and "no answer of helper north" in answer.text
    assert len([note for note in of(out, Note) if "no answer of helper" in note.text]) == 1
    assert round_in(out).mode == "profile", "the scaling is still to come"


@pytest.mark.parametrize("after", ["open", "asked", "answered"])
def test_a_restart_asks_for_the_same_sums_again(after):
    coordinator, round, terms = open_profile(*"abcd")
    out = []
    for device in "abcd"[: 2 if after == "open" else 4]:
        out += feed(coordinator, *parts(round, device), now=1.0)
    helper, kept = make_helper(), {}
    if after == "answered":
        answer_of(helper, asked(out), kept)
    saved = None if after == "open" else SavedAsk.from_bytes(saved_in(out).to_bytes())
    again = make_profiled(start={"attempt": 2, "asked": saved})
    out = feed(again, *map(status, "abcd"), Connected(), now=5.0)
    assert round_in(out).terms == terms.text and round_in(out).mode == "profile"
    if after == "open":
        for device in "abcd":
            out += feed(again, *parts(round, device), now=6.0)
    else:
        assert again.phase == "unmasking"
    out = feed(again, *answer_of(helper, asked(out), kept), now=7.0)
    commit = commit_of(out)
    assert commit.record.devices == list("abcd") and commit.record.version == 1 and commit.record.profile
    assert of(out, SaveProfile)[0].profile == of(played()[1], SaveProfile)[0].profile


# What is refused


def refused(blob_of, why: str) -> None:
    coordinator, round, _ = open_profile(*"abc")
    out = feed(coordinator, *parts(round, "a", blob_of(round)), now=1.0)
    assert any(why in note.text for note in of(out, Note)), of(out, Note)
    assert not coordinator.tally.masked.entries and not coordinator.tally.masked.sums[0].any()


def test_i36_statistics_in_the_clear_are_not_counted_in_a_masked_profile():
    x, y = data("a")
    plain = UpdateHeader(40, 0, 0.0, 0, 9, is_profile=True).to_bytes() + encode(of_examples(MODEL.plan, x, y))
    refused(lambda round: resigned(plain, "a"), "no masked update in a round that is masked")


def test_a_masked_delta_is_no_profile_and_a_profile_no_delta():
    """The header says which it is, and so do the terms that the payload names."""
    maker = profile_maker()
    asked_of = profile_round(maker=maker)
    training = maker.terms(round=1, version=0, model_sha256=asked_of.model_sha256, manifest=MANIFEST.id)
    delta = msgspec.structs.replace(asked_of, mode="train", requires=["masked"], terms=training.text)
    refused(lambda round: told(delta, "a"), "the round is to profile, the update comes of one to train")
    with pytest.raises(ProtocolError, match="the round is to train, the update comes of one to profile"):
        header_for("train", told(asked_of, "a"), masked=True)
    relabelled = UpdateHeader.masked(profile=True).to_bytes() + told(delta, "a")[UpdateHeader.SIZE + SIGNATURE_BYTES :]
    refused(lambda round: resigned(relabelled, "a"), "for other terms than the round's")


def hostile(terms: Terms) -> bytes:
    """Values that no bin has."""
    q = np.zeros(terms.length, np.int32)
    assert terms.profile is not None
    q[terms.at_checks], q[terms.profile.head] = 1, 10**6
    blob = masked_blob(terms, "a", q)
    return resigned(UpdateHeader.masked(profile=True).to_bytes() + blob[UpdateHeader.size_of(blob) :], "a")


def test_sums_that_no_data_have_end_the_round():
    coordinator, round, terms = open_profile(*"abc")
    out = feed(coordinator, *parts(round, "a", hostile(terms)), now=1.0)
    for device in "bc":
        out += feed(coordinator, *parts(round, device), now=1.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    record = commit_of(out).record
    assert record.state == "abandoned" and "no devices can have told together" in record.why
    assert not of(out, SaveProfile)


def test_fewer_devices_than_the_least_are_not_opened():
    coordinator, round, _ = open_profile(*"abc")
    out = [action for device in "ab" for action in feed(coordinator, *parts(round, device), now=1.0)]
    out += run_out(coordinator)
    assert commit_of(out).record.state == "abandoned" and not asked(out)
    helper = make_helper(least=5)
    coordinator, _, _, out = closed("abc")
    out = feed(coordinator, *answer_of(helper, asked(out)), now=2.0)
    assert "few: 3 in a group, and 5 are needed" in commit_of(out).record.why


# The device's half


def test_a_device_tells_of_whole_groups_and_of_as_many_as_there_is_room_for():
    with pytest.raises(PolicyError, match="no column statistics leave it"):
        told(profile_round(), "a", policy=replace(OPEN, statistics=False))
    with pytest.raises(PolicyError, match="at least 50"):
        told(profile_round(), "a", policy=replace(OPEN, min_examples=50))
    few, policy = profile_maker(fleet=2**20), replace(OPEN, min_examples=10)
    coordinator, round, terms = open_profile(*"abc", maker=few)
    out = []
    for device in "abc":
        table = np.ones((5000, 3), np.float32), np.zeros(5000, np.int64)
        out += feed(coordinator, *parts(round, device, told(round, device, table, policy=policy)), now=1.0)
    assert terms.reach == 2047
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    found = of(out, SaveProfile)[0].profile
    assert found.examples == 3 * 2040, "the first 2047 have room, and these are whole groups of ten"


def test_where_there_is_noise_an_order_is_refused():
    noisy = msgspec.structs.replace(PRIVACY, noise="independent", sigma=1.0, bits=24)
    maker = profile_maker(noisy, ledger=Ledger("0" * 16, 1e-5))
    coordinator = make_profiled(noisy, maker=maker, features=FeatureSettings(), params=SCALED)
    feed(coordinator, *map(status, "abcd"), Connected())
    nothing_known(coordinator)
    out = feed(coordinator, AskProfile("order-1"))
    (answer,) = of(out, Answered)
    assert not answer.done and "noise" in answer.text
    assert round_in(run_out(coordinator)).mode == "train"
