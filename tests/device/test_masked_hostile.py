"""What a hostile aggregator, or a careless owner, tries to get a device to send in the clear, or too often."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from keyed import receipt_of, sealed, signed_round
from machines import PARAMS, RUN, STATUS, TOPICS, feed, last, model_parts, of, serve
from masked_device import MASKED, device, hear, masked_round, refused
from masked_rounds import MANIFEST, PRIVACY, helper_certificate, helper_keys, party, terms_maker, vector

from edgefl.device.events import Failed, Outbox, SaveSeen, StartTraining, Trained
from edgefl.device.owner.policy import Policy
from edgefl.device.seen import Seen
from edgefl.machine import Note, Publish
from edgefl.masking.update import mask
from edgefl.protocol.inbox import Receipt
from edgefl.protocol.messages import Status
from edgefl.protocol.terms import Party, Terms
from edgefl.protocol.update_header import UpdateHeader
from edgefl.trust.ed25519 import from_text, to_text


@pytest.mark.parametrize(
    "change", [{"mode": "evaluate"}, {"requires": []}, {"round": 2}, {"version": 1}, {"version": 1, "attempt": 2}]
)
def test_i36_terms_that_were_agreed_to_are_no_pass_for_another_round(change):
    """The same terms around other work: scores in the clear, or another model for one victim."""
    session, _ = device()
    first = masked_round()
    assert of(hear(session, first), StartTraining)
    other = masked_round(version=change["version"]) if "version" in change else first
    out = hear(session, msgspec.structs.replace(other, terms=first.terms, **change))
    status = last(out, Status, STATUS)
    assert not of(out, StartTraining) and "another round or model" in status.reason, status


def test_i36_a_profile_is_refused_where_all_is_to_be_masked():
    refused(signed_round(1, manifest=MANIFEST, mode="profile"), "not masked")


def test_i36_a_plain_update_from_before_the_owners_word_stays():
    """It was made, and saved; then the owner wants masks, and the next round takes late updates."""
    plain = UpdateHeader(20, 2, 1.0, 5, 0).to_bytes() + PARAMS.tobytes()
    saved = Outbox(MANIFEST.id, 1, 0, plain, attempt=1)
    session, _ = device(outbox=saved)
    out = hear(session, msgspec.structs.replace(masked_round(2), late_rounds=3))
    assert not [a for a in of(out, Publish) if "/u/" in a.topic]
    assert session.forged == 0 and of(out, StartTraining)


def test_an_epsilon_that_the_owner_refused_was_not_spent():
    """The operator corrects the noise, and the device takes part: what it remembers is what it has agreed to."""
    session, _ = device(replace(MASKED, most_clip=1.0))
    loose = terms_maker(msgspec.structs.replace(PRIVACY, clip=2.0))
    noisy = {"noise": {"kind": "independent", "sigma": 1.0}, "epsilon": 50.0, "delta": 1e-5, "bits": 24}
    first = masked_round(maker=loose, change=lambda terms: _with(terms, noisy))
    out = hear(session, first)
    assert not of(out, StartTraining)
    assert all(save.seen.epsilon == 0 for save in of(out, SaveSeen))


def _with(terms, changes):
    from edgefl.protocol.terms import Noise

    return msgspec.structs.replace(terms, **{**changes, "noise": Noise(**changes["noise"])})


@pytest.mark.parametrize("number", [9, 8])
def test_i38_a_round_before_the_last_one_is_no_way_around_the_separation(number):
    """A higher attempt with a lower number: the helper opens both, in their order."""
    maker = terms_maker(msgspec.structs.replace(PRIVACY, separation=5))
    again = masked_round(number, maker=maker, attempt=2)
    refused(again, "must lie between", seen=Seen(1, 1, masked_round=10), code="rests")


@pytest.mark.parametrize("delta", [1e-5, 1e-3, 0.9])
def test_i36_an_epsilon_at_a_large_delta_says_nothing(delta):
    policy: Policy = replace(MASKED, most_epsilon=8.0)
    noisy = {"noise": {"kind": "independent", "sigma": 1.0}, "epsilon": 1.0, "delta": delta, "bits": 24}
    session, _ = device(policy)
    out = hear(session, masked_round(change=lambda terms: _with(terms, noisy)))
    assert bool(of(out, StartTraining)) == (delta == 1e-5)


def test_i36_no_noise_is_no_small_epsilon():
    """Terms without noise tell an epsilon of 0, and any that an owner bounds is below infinity."""
    refused(masked_round(), "without noise", replace(MASKED, most_epsilon=8.0))


def test_i36_why_a_round_failed_tells_no_loss_and_no_number_of_examples():
    session, _ = device()
    (start,) = of(hear(session, masked_round()), StartTraining)
    reason = "an update of 7 examples, at least 10 must be behind it"
    out = feed(session, Failed(start.job, reason, "policy", final=True))
    status = last(out, Status, STATUS)
    assert (status.state, status.code) == ("trouble", "policy") and "7" not in status.reason and "log" in status.reason
    assert any(reason in note.text for note in of(out, Note)), "its owner is told"


def test_i36_a_device_with_too_many_examples_does_not_tell_how_many():
    policy = replace(MASKED, max_flops=10.0)
    assert policy.of_work(MANIFEST, 777) == policy.of_work(MANIFEST, 888) != ""


def test_i38_the_separation_holds_in_a_new_epoch_of_the_same_run():
    maker = terms_maker(msgspec.structs.replace(PRIVACY, separation=5))
    before = Seen(1, 1, run=RUN, masked_round=6, masked_run=RUN)
    refused(masked_round(7, maker=maker), "must lie between", seen=before.in_epoch(1, 1), code="rests")
    other = replace(before, masked_run="f" * 16)
    session, _ = device(seen=other.in_epoch(1, 1))
    round = masked_round(7, maker=maker)
    (start,) = of(hear(session, round), StartTraining)
    terms = Terms.read(round.terms)
    made = UpdateHeader.masked().to_bytes() + mask(vector(terms, "a"), terms, "a", None)
    out = feed(session, Trained(start.job, made))
    seen = of(out, SaveSeen)[-1].seen
    assert (seen.masked_round, seen.masked_run) == (7, RUN)


# Who opens


def helped_by(*names: str):
    """What makes the terms of rounds that these helpers open together."""
    return terms_maker(msgspec.structs.replace(PRIVACY, helpers=",".join(names)))


ACME = {"north": "acme", "north-2": "acme", "south": "university"}


@pytest.mark.parametrize(
    ("helpers", "operators", "parties"),
    [
        (["north"], {}, 1),
        (["north", "north-2"], ACME, 1),
        (["north", "strange"], ACME, 1),  # of whom its owner knows nothing
        (["strange"], ACME, 0),
        (["north", "south"], ACME, 2),
        (["north", "north-2", "south"], ACME, 2),
        (["north", "strange"], {}, 2),
    ],
)
def test_i36_a_sum_that_too_few_operators_open_together_is_refused(helpers, operators, parties):
    policy = replace(MASKED, least_helpers=2, operators=operators)
    maker = helped_by(*helpers)
    if parties < 2:
        refused(masked_round(maker=maker), f"helpers of {parties} operator(s), least_helpers is 2", policy)
    else:
        session, _ = device(policy)
        assert of(hear(session, masked_round(maker=maker)), StartTraining)


@pytest.mark.parametrize("same", ["box", "key"])
def test_i36_one_key_under_two_names_is_one_helper(same):
    """Not even where the root has certified both names."""
    north, south = helper_keys("north"), helper_keys("south")
    if same == "box":
        south = south._replace(box_public=north.box_public, box_private=north.box_private)
    else:
        south = south._replace(signing=north.signing)
    both = (party(north), party(south))
    round = masked_round(
        certificates=[helper_certificate(north), helper_certificate(south)],
        change=lambda terms: msgspec.structs.replace(terms, helpers=both),
    )
    refused(round, "two helpers with one key", replace(MASKED, least_helpers=2))


def test_i36_one_key_in_two_spellings_is_one_helper():
    """Base64 has several texts for one key."""
    (north,) = helped_by("north").helpers
    again = respelled(north.box)
    assert from_text(north.box) == from_text(again) and north.box != again
    twin = Party("south", 1, again, to_text(helper_keys("south").signing.public))
    refused(
        masked_round(change=lambda terms: msgspec.structs.replace(terms, helpers=(north, twin))), "two helpers with one"
    )


def respelled(text: str) -> str:
    """The same bytes: two bits of the last letter count for nothing."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return f"{text[:-2]}{letters[letters.index(text[-2]) ^ 1]}="


# What is spent, and how often


@pytest.mark.parametrize("told", [{"epsilon": 0.0, "delta": 1e-5}, {"epsilon": 1.0, "delta": 0.0}])
def test_i36_noise_that_nobody_accounts_for_is_no_small_epsilon(told):
    noisy = {"noise": {"kind": "independent", "sigma": 0.001}, "bits": 24, **told}
    refused(
        masked_round(change=lambda terms: _with(terms, noisy)),
        "no epsilon and delta",
        replace(MASKED, most_epsilon=8.0),
    )


def test_i38_a_round_that_opens_while_the_device_trains_is_no_way_around_the_separation():
    """It agreed to round 6 while it trained for round 5, which the aggregator says may be late; then it took part in
    round 5, and no message comes that has round 6 judged anew."""
    maker = terms_maker(msgspec.structs.replace(PRIVACY, separation=5))
    session, _ = device()
    fifth = masked_round(5, maker=maker)
    (start,) = of(hear(session, fifth), StartTraining)
    hear(session, msgspec.structs.replace(masked_round(6, maker=maker), late_rounds=3))
    terms = Terms.read(fifth.terms)
    made = UpdateHeader.masked().to_bytes() + mask(vector(terms, "a"), terms, "a", None)
    out = feed(session, Trained(start.job, made))
    assert of(out, SaveSeen)[-1].seen.masked_round == 5
    out = serve(session, feed(session, receipt_of("counted", 5)), model_parts(0))
    assert not of(out, StartTraining)
    out = serve(session, feed(session, sealed(TOPICS.inbox("a"), Receipt(5, 1, "counted", folded=6, run=RUN))))
    assert session.round.round == 6 and not of(out, StartTraining)
    assert "must lie between" in last(out, Status, STATUS).reason
