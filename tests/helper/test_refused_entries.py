"""Devices and sealed seeds that a helper does not open a set with: each reason is in its log and in its answer."""

from __future__ import annotations

import msgspec
from helped import (
    DEVICE_KEYS,
    DEVICES,
    THIEF,
    Desk,
    ask_of,
    entry_of,
    keys_of,
    masked,
    refused,
    roster_of,
    terms_of,
)

from edgefl.helper.events import RosterRead
from edgefl.helper.least import Least

replace = msgspec.structs.replace


def with_entries(ask, *entries):
    return replace(ask, entries=tuple(entries))


def test_fewer_devices_than_the_owner_wants_or_than_the_terms_want():
    assert "3 are needed" in refused(Desk(least=Least(devices=3)), ask_of(terms_of(), DEVICES[:2]), "few")
    assert "4 are needed" in refused(Desk(), ask_of(terms_of(least=4), DEVICES[:3]), "few")


def test_no_group_has_enough_devices():
    terms = terms_of(groups=2)
    pair = [next(device for device in DEVICES if terms.group_of(device) == group) for group in (0, 1)]
    refused(Desk(), ask_of(terms, pair), "few")


def test_more_devices_than_the_terms_allow():
    refused(Desk(), ask_of(terms_of(most=3), DEVICES[:4]), "many")


def test_a_device_that_is_not_enrolled():
    terms = terms_of()
    reason = refused(Desk(), ask_of(terms, [*DEVICES[:2], "stranger"]), "unknown")
    assert "stranger, by roster 1" in reason


def test_all_devices_that_the_roster_does_not_have_are_named_and_nothing_is_opened():
    """So the set without them can be opened in the same round, by a newer roster the whole one can't be any more."""
    terms, desk = terms_of(), Desk(roster=roster_of(*DEVICES[:3], serial=4))
    whole = ask_of(terms, DEVICES[:5])
    reason = refused(desk, whole, "unknown")
    assert f"{DEVICES[3]} and 1 more, such as {DEVICES[4]}, by roster 4" in reason
    answer = desk.ask(whole)
    assert answer is not None and (answer.unopened, answer.roster) == (tuple(DEVICES[3:5]), 4)
    left = desk.ask(ask_of(terms, DEVICES[:3]))
    assert left is not None and (left.reason, left.unopened, left.roster) == ("", (), 4)
    desk.feed(RosterRead(roster_of(serial=5)))
    refused(desk, whole, "second")


def test_a_roster_of_before_a_whole_fleet_was_enrolled_is_told_of_too():
    """As that of a bundle which was made first is: else the helper would say nothing, and look as if it were away."""
    terms, desk = terms_of(most=500, bits=20), Desk(roster=roster_of(*DEVICES[:2]))
    one = entry_of(DEVICES[0], terms)
    fleet = [msgspec.structs.replace(one, device=f"e-{number:03}") for number in range(500)]
    reason = refused(desk, with_entries(ask_of(terms), *fleet), "unknown")
    assert "e-000 and 499 more" in reason and "by roster 1: is that the operator's newest?" in reason


def test_all_devices_whose_key_the_roster_does_not_have_are_named():
    terms = terms_of()
    entries = [entry_of(DEVICES[0], terms), *(entry_of(name, terms, THIEF) for name in DEVICES[1:3])]
    answer = Desk().ask(with_entries(ask_of(terms), *entries))
    assert answer is not None and answer.unopened == tuple(DEVICES[1:3])


def test_a_device_that_is_revoked_from_the_moment_in_which_the_roster_is_read():
    desk, ask = Desk(), ask_of(terms_of(2))
    first = desk.ask(ask_of(terms_of(1)))
    assert first is not None and not first.reason
    desk.feed(RosterRead(roster_of(serial=2, revoked=(DEVICES[1],))))
    assert DEVICES[1] in refused(desk, ask, "revoked")


def test_k_minus_one_sybils_whose_keys_nobody_has_enrolled():
    """An aggregator that signs for devices itself, to be alone with its victim."""
    terms = terms_of()
    entries = [entry_of(DEVICES[0], terms), *(entry_of(name, terms, THIEF) for name in DEVICES[1:4])]
    reason = refused(Desk(), with_entries(ask_of(terms), *entries), "signature")
    assert DEVICES[1] in reason


def test_a_device_twice_and_devices_out_of_order():
    ask = ask_of(terms_of())
    first, second, third = ask.entries
    refused(Desk(), with_entries(ask, first, first, second), "order")
    refused(Desk(), with_entries(ask, second, first, third), "order")


def test_a_signature_of_other_terms_is_none_of_these():
    """A model of its own for one victim: its H is another one."""
    terms, victims = terms_of(), terms_of(model_sha256="cd" * 32)
    entries = [entry_of(DEVICES[0], victims), *ask_of(terms, DEVICES[1:3]).entries]
    refused(Desk(), with_entries(ask_of(terms), *entries), "signature")


def test_a_vector_that_the_device_has_not_signed():
    ask = ask_of(terms_of())
    changed = replace(ask.entries[1], packed_sha256=bytes(32))
    refused(Desk(), with_entries(ask, ask.entries[0], changed, ask.entries[2]), "signature")


def test_a_sealed_seed_that_the_aggregator_has_put_in_the_place_of_a_devices():
    """It knows the seed, would subtract its mask, and be left with that of the other device."""
    terms = terms_of()
    forged = masked(DEVICES[1], terms, THIEF, "forged").boxes
    ask = ask_of(terms, DEVICES[:2])
    refused(Desk(), with_entries(ask, ask.entries[0], replace(ask.entries[1], boxes=forged)), "signature")


def test_i34_the_seeds_for_all_helpers_are_signed_not_only_ours():
    north, south = keys_of(), keys_of(name="south")
    terms = terms_of(keys=[north, south])
    ask = ask_of(terms, DEVICES[:2])
    mine, other = ask.entries[1].boxes
    forged = masked(DEVICES[1], terms, THIEF, "forged").boxes
    for boxes in ((forged[0], other), (mine, forged[1]), (other, mine), (mine, mine)):
        refused(Desk(), with_entries(ask, ask.entries[0], replace(ask.entries[1], boxes=boxes)), "signature")


def signed_with(terms, device: str, boxes):
    """An entry that the device itself has signed, with these boxes."""
    from edgefl.masking.exchange import Entry
    from edgefl.masking.sealed import statement_of

    entry = Entry(device, b"v" * 32, b"", tuple(boxes))
    said = statement_of(terms.digest, entry.packed_sha256, entry.boxes_sha256)
    return replace(entry, signature=DEVICE_KEYS[device].sign(said))


def test_a_sealed_seed_that_our_key_does_not_open_or_that_is_replayed():
    """Of another helper's key; of another device; of other terms; of another epoch. The device itself has signed it."""
    from edgefl.masking import sealed

    terms, other = terms_of(), terms_of(seed=99)
    public, device, seed = keys_of().box_public, DEVICES[1], b"\7" * 32
    wrong = {
        "does not open": sealed.seal(seed, terms.digest, device, keys_of(name="south").box_public),
        "of another device": sealed.seal(seed, terms.digest, DEVICES[2], public),
        "for other terms": sealed.seal(seed, other.digest, device, public),
        "key does not open": sealed.seal(seed, terms.digest, device, keys_of(2).box_public),
    }
    for says, box in wrong.items():
        ask = ask_of(terms, DEVICES[:2])
        reason = refused(Desk(), with_entries(ask, ask.entries[0], signed_with(terms, device, [box])), "box")
        assert device in reason and says in reason
    ask = ask_of(terms, DEVICES[:2])
    good = signed_with(terms, device, [sealed.seal(seed, terms.digest, device, public)])
    answer = Desk().ask(with_entries(ask, ask.entries[0], good))
    assert answer is not None and not answer.reason, "else this test could not fail"


def test_all_devices_that_seal_nonsense_are_named_and_the_set_without_them_is_opened():
    """At once, or each of them would cost a round. Nothing was opened of the set with them."""
    terms, desk = terms_of(), Desk()
    ask, nonsense = ask_of(terms, DEVICES[:5]), [bytes(130)]
    broken = {device: signed_with(terms, device, nonsense) for device in (DEVICES[1], DEVICES[3])}
    whole = with_entries(ask, *(broken.get(entry.device, entry) for entry in ask.entries))
    reason = refused(desk, whole, "box")
    assert f"{DEVICES[1]}: " in reason and f"and those of 1 more, such as {DEVICES[3]}" in reason
    answer = desk.ask(whole)
    assert answer is not None and answer.unopened == (DEVICES[1], DEVICES[3])
    left = desk.ask(ask_of(terms, [DEVICES[0], DEVICES[2], DEVICES[4]]))
    assert left is not None and not left.reason and left.unopened == ()
    refused(desk, whole, "second")


def test_a_refusal_names_no_more_devices_than_it_has_room_for(monkeypatch):
    monkeypatch.setattr("edgefl.helper.opening.MAX_NAMED", 3)
    terms = terms_of()
    ask = ask_of(terms, DEVICES)
    answer = Desk().ask(with_entries(ask, *(signed_with(terms, entry.device, [bytes(130)]) for entry in ask.entries)))
    assert answer is not None and answer.unopened == tuple(DEVICES[:3])


def test_too_many_or_too_few_sealed_seeds():
    north, south = keys_of(), keys_of(name="south")
    two = ask_of(terms_of(keys=[north, south]), DEVICES[:2])
    one = with_entries(two, *(signed_with(terms_of(keys=[north, south]), e.device, e.boxes[:1]) for e in two.entries))
    assert "1 sealed seeds, for 2 helpers" in refused(Desk(), one, "box")
