"""What ends or spoils a masked round: updates that are refused, and answers of helpers that are not right."""

from __future__ import annotations

import msgspec
import numpy as np
from machines import commit_of, feed, of, status
from masked_rounds import (
    DEVICES,
    PRIVACY,
    abandoned,
    answer_of,
    asked,
    closed,
    device_key,
    helper_keys,
    make_helper,
    make_masked,
    masked_blob,
    masked_parts,
    open_masked,
    resigned,
    terms_maker,
    word,
)

from edgefl.machine import Connected, Note
from edgefl.masking import ring
from edgefl.masking.exchange import Answer, read_answer
from edgefl.masking.update import _AT_BOXES, signed
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.parts import Splitter
from edgefl.protocol.terms import Terms
from edgefl.protocol.update_header import UpdateHeader


def reject(blob, device="a", why=""):
    coordinator, terms = open_masked(*DEVICES[:3])
    out = feed(coordinator, *masked_parts(terms, device, blob(terms)), now=1.0)
    told = word(out, device)
    dropped = [note.text for note in of(out, Note)]
    assert told is None or told.outcome == "rejected"
    assert any(why in text for text in dropped), dropped
    assert not coordinator.tally.masked.entries and not coordinator.tally.masked.sums[0].any()


def test_an_update_for_other_terms_is_refused():
    other = terms_maker(msgspec.structs.replace(PRIVACY, clip=1.0))

    def blob(terms):
        changed = other.terms(
            round=terms.round, version=terms.version, model_sha256=terms.model_sha256, manifest=terms.manifest
        )
        return masked_blob(Terms.read(changed.text), "a")

    reject(blob, why="other terms")


def test_an_update_under_old_keys_of_a_helper_that_comes_late_does_not_cost_the_newer_one():
    """The round was opened again with new keys, and its device has trained again: a receipt would be about that."""
    coordinator, terms = open_masked(*DEVICES[:3])
    maker = terms_maker(keys=[helper_keys(epoch=2)])
    place = {"round": terms.round, "version": terms.version, "model_sha256": terms.model_sha256}
    former = Terms.read(maker.terms(**place, manifest=terms.manifest).text)
    out = feed(coordinator, *masked_parts(former, "a"), now=1.0)
    assert word(out, "a") is None and any("for other terms" in note.text for note in of(out, Note))
    assert coordinator.tally.is_waiting_for("a"), "its newer one may be under way"
    for device in "abc":
        out = feed(coordinator, *masked_parts(terms, device), now=2.0)
        assert word(out, device).outcome == "counted"
    record = commit_of(feed(coordinator, *answer_of(make_helper(), asked(out)), now=3.0)).record
    assert record.devices == list("abc")


def test_a_masked_vector_that_another_key_has_signed_is_refused():
    reject(lambda terms: masked_blob(terms, "a", key=device_key("b")), why="not signed")


def test_a_plain_update_in_a_masked_round_is_refused():
    plain = UpdateHeader(5, 1, 0.5, 10, 0).to_bytes() + bytes(400)
    reject(lambda terms: resigned(plain, "a"), why="no masked update")


def test_a_masked_update_in_a_plain_round_is_refused():
    _, terms = open_masked()
    coordinator = make_masked(start={"masked": None})
    feed(coordinator, *map(status, "abc"), Connected())
    out = feed(coordinator, *masked_parts(terms, "a"), now=1.0)
    assert any("masked update in a round that is not masked" in note.text for note in of(out, Note))
    assert coordinator.tally.num_counted == 0


def test_a_helper_that_refuses_ends_the_round_with_its_reason():
    coordinator, _, out = closed()
    out = feed(coordinator, *answer_of(make_helper(least=9), asked(out)), now=2.0)
    abandoned(out, "helper north refuses to open the sum: few: 5 in a group, and 9 are needed")


def test_a_replayed_sealed_seed_ends_the_round():
    """A device brings the box of another one: its own signature is right, and the helper can't open it as its."""
    coordinator, terms = open_masked(*DEVICES[:3])
    own, other = (blob[UpdateHeader.size_of(blob) :] for blob in (masked_blob(terms, device) for device in "ab"))
    box = slice(_AT_BOXES, _AT_BOXES + 2 + int.from_bytes(own[_AT_BOXES : _AT_BOXES + 2], "little"))
    payload = own[: box.start] + other[box] + own[box.stop :]
    bare = UpdateHeader.masked().to_bytes() + signed(payload, device_key("a"))
    out = feed(coordinator, *masked_parts(terms, "a", resigned(bare, "a")), now=1.0)
    for device in "bc":
        out += feed(coordinator, *masked_parts(terms, device), now=1.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    abandoned(out, "box: a")


def wrong_answer(change):
    """The round of a helper whose answer is changed before it signs it."""
    coordinator, terms, out = closed()
    good = answer_of(make_helper(), asked(out))
    keys = helper_keys()
    found = read_answer(bytes(Envelope.from_bytes(good[0].payload).data), "north", keys.signing.public, terms)
    blob = change(found, terms).to_bytes("north", keys.signing)
    splitter = Splitter(
        blob, 60_000, kind=Kind.ANSWER, codec=0, federation=coordinator.announcer.hash, round=1, version=0
    )
    return feed(coordinator, type(good[0])(good[0].topic, splitter.part(0)), now=2.0), coordinator


def shifted(answer: Answer, terms: Terms, at: int) -> Answer:
    (count, packed), *_ = answer.groups
    total = ring.unpack(packed, terms.length, terms.bits)
    total[at] += 1
    return msgspec.structs.replace(answer, groups=((count, ring.pack(total, terms.bits)),))


def test_an_answer_that_leaves_the_check_coordinates_wrong_ends_the_round():
    out, _ = wrong_answer(lambda answer, terms: shifted(answer, terms, terms.coordinates))
    abandoned(out, "checks do not add up")


def test_an_answer_for_another_set_ends_the_round():
    out, _ = wrong_answer(lambda answer, terms: msgspec.structs.replace(answer, set_digest=bytes(32)))
    abandoned(out, "another set of this round")


def test_an_answer_for_another_number_of_devices_ends_the_round():
    def change(answer, terms):
        return msgspec.structs.replace(answer, groups=((4, answer.groups[0][1]),))

    out, _ = wrong_answer(change)
    abandoned(out, "a group of 4 devices, not 5")


def test_an_answer_that_the_helper_has_not_signed_is_dropped():
    coordinator, _, out = closed()
    thief = make_helper(keys=helper_keys(what="thief"))
    out = feed(coordinator, *answer_of(thief, asked(out)), now=2.0)  # it refuses, in its own name
    assert commit_of(out) is None and coordinator.phase == "unmasking"
    assert any("has not signed" in note.text for note in of(out, Note))


def test_a_model_that_is_not_finite_and_a_gate_are_treated_as_ever():
    coordinator, _terms, out = closed()
    coordinator.strategy.finish = lambda: np.full(len(coordinator.params), np.nan, np.float32)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    commit = commit_of(out)
    assert commit.params is None and "not finite" in commit.record.why
