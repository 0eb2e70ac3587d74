"""A device in a masked round: under which terms it takes part, what it sends, and what its status keeps to itself."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from keyed import SIGNER, THIEF, TODAY, sealed, signed_round
from machines import FEDERATION, PLAN, RUN, STATUS, TOPICS, P, feed, last, make_session, of, serve
from masked_device import MASKED, device, hear, masked_round, refused
from masked_rounds import DEVICES, MANIFEST, PRIVACY, device_key, helper_certificate, helper_keys, party, terms_maker

from edgefl.coordinator.absence import REASON
from edgefl.core.trainer import Trainer
from edgefl.device.events import SaveSeen, SaveUpdate, StartTraining, Trained, TrainJob
from edgefl.device.owner.policy import OPEN
from edgefl.device.seen import Seen
from edgefl.device.training import train_update
from edgefl.machine import Connected, Publish, Tick
from edgefl.masking.update import read
from edgefl.protocol.messages import Status, decode
from edgefl.protocol.signed_update import Context, check
from edgefl.protocol.terms import Terms
from edgefl.protocol.trouble import REMEDIES
from edgefl.protocol.update_header import UpdateHeader
from edgefl.simulation.tasks.task import Drawn


def test_a_device_takes_part_under_terms_that_its_owner_allows():
    session, out = device()
    assert last(out, Status, STATUS).num_examples == 0
    out = hear(session, masked_round())
    assert len(of(out, StartTraining)) == 1
    assert of(out, SaveSeen)[-1].seen.helpers.keys() == {"north"}


def test_i36_no_downgrade_a_plain_round_is_refused():
    refused(signed_round(1, manifest=MANIFEST), "not masked")


def test_a_round_that_was_refused_and_goes_on_does_not_wait_for_the_device():
    """Its pause is over, and the round is announced for a further deadline, or by another process."""
    session, _ = device()
    hear(session, signed_round(1, manifest=MANIFEST))
    told = []
    while session.wake_at is not None:
        told += of(feed(session, Tick(), now=session.wake_at), Publish, STATUS)
    assert decode(Status, told[-1].payload).state == "ready"
    out = feed(session, sealed(TOPICS.round, signed_round(1, 0, 2, manifest=MANIFEST)), now=100.0)
    assert last(out, Status, STATUS).code == "policy" and session.wake_at == 100.0 + 2 * 60.0
    out = feed(session, Tick(), now=session.wake_at)
    assert last(out, Status, STATUS).state == "ready", "too few may be there for another round"


@pytest.mark.parametrize("first", [
    signed_round(1, manifest=MANIFEST),
    masked_round(maker=terms_maker(msgspec.structs.replace(PRIVACY, clip=2.0))),
], ids=["not masked", "a larger clip"])  # fmt: skip
def test_a_refused_round_that_comes_again_under_other_terms_is_judged_anew(first):
    """An aggregator that was started anew, with what the owner wants, announces the round that was open."""
    second = masked_round(maker=terms_maker(msgspec.structs.replace(PRIVACY, clip=1.0)), attempt=2)
    session, _ = device(replace(MASKED, most_clip=1.0))
    assert last(hear(session, first), Status, STATUS).code == "policy"
    assert of(hear(session, second), StartTraining)


def test_i36_no_downgrade_scores_in_the_clear_are_refused():
    refused(signed_round(1, manifest=MANIFEST, mode="evaluate"), "not masked")


def test_without_the_owners_word_a_device_takes_part_in_plain_rounds_too():
    session, _ = device(OPEN)
    assert len(of(hear(session, signed_round(1, manifest=MANIFEST)), StartTraining)) == 1


@pytest.mark.parametrize(
    ("policy", "changes", "why"),
    [
        ({"most_clip": 1.0}, {"clip": 2.0}, "updates clipped at 2, at most 1 is allowed"),
        ({"least_devices": 4}, {"least": 3}, "a sum of 3 devices, at least 4 wanted"),
        ({"most_weight": 1}, {"weight": 5}, "a weight of 5, at most 1 is allowed"),
        ({"least_noise": 0.5}, {}, "noise of 0 times an update, at least 0.5 wanted"),
        ({"least_separation": 10}, {"separation": 9}, "back after 9 rounds, not 10"),
        ({"helpers": frozenset({"south"})}, {}, "helper north is none of its helpers"),
    ],
)
def test_i36_terms_that_are_less_than_the_owner_wants_are_refused(policy, changes, why):
    maker = terms_maker(msgspec.structs.replace(PRIVACY, **changes))
    refused(masked_round(maker=maker), why, replace(MASKED, **policy))


def test_i36_k_minus_one_sybils_are_no_crowd():
    """An aggregator that enrols devices of its own lowers `least` to what is left: the owner's bound holds."""
    maker = terms_maker(msgspec.structs.replace(PRIVACY, least=2))
    refused(masked_round(maker=maker), "a sum of 2 devices", replace(MASKED, least_devices=3))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda terms: msgspec.structs.replace(terms, manifest="0" * 16), "another round or model"),
        (lambda terms: msgspec.structs.replace(terms, model_sha256="0" * 64), "another round or model"),
        (lambda terms: msgspec.structs.replace(terms, round=9), "another round or model"),
        (lambda terms: msgspec.structs.replace(terms, run="f" * 16), "another round or model"),
        (lambda terms: msgspec.structs.replace(terms, params=P + 1), "terms for updates of 1001 numbers"),
        (lambda terms: msgspec.structs.replace(terms, bits=6), "a modulus too small"),
    ],
)
def test_i36_terms_of_another_model_or_manifest_for_one_victim_are_refused(change, why):
    refused(masked_round(change=change), why)


def test_i36_another_helpers_key_is_refused():
    thief = helper_keys(what="thief")
    refused(
        masked_round(maker=terms_maker(keys=[thief]), certificates=[helper_certificate(helper_keys())]), "other keys"
    )
    forged = helper_certificate(thief, root=THIEF)
    refused(masked_round(maker=terms_maker(keys=[thief]), certificates=[forged]), "not sealed by the right key")
    refused(masked_round(certificates=[]), "the root's word on helper north is missing")
    old = helper_certificate(helper_keys(), not_after=TODAY - 10)
    refused(masked_round(certificates=[old]), "out of its dates")


def test_i36_a_helpers_key_that_changes_within_its_certificate_or_goes_back_is_refused():
    session, _ = device()
    seen = of(hear(session, masked_round()), SaveSeen)[-1].seen
    thief = helper_keys(what="thief")
    other = masked_round(2, maker=terms_maker(keys=[thief]), certificates=[helper_certificate(thief, serial=1)])
    refused(other, "other keys than before", seen=replace(seen, attempt=0, round=0))
    newer = replace(seen, helpers={"north": (5, "f" * 16)}, attempt=0, round=0)
    refused(masked_round(), "was replaced by 5", seen=newer)
    third = helper_keys(epoch=2)
    session, _ = device(seen=replace(seen, attempt=0, round=0))
    assert of(hear(session, masked_round(maker=terms_maker(keys=[third]))), StartTraining), "a later epoch"


def test_i38_an_epsilon_that_falls_is_refused_in_a_new_epoch_too():
    refused(masked_round(), "epsilon falls from 3 to 0", seen=Seen(epsilon=3.0))
    refused(masked_round(), "epsilon falls from 2.10001 to 0", seen=Seen(epsilon=2.1 + 1e-9))  # [privacy] told is that
    assert Seen(1, 1, epsilon=3.0, helpers={"north": (1, "a")}).in_epoch(2, 2) == Seen(
        2, 2, epsilon=3.0, helpers={"north": (1, "a")}
    )


def test_an_epsilon_that_falls_is_the_aggregators_fault_and_its_remedy_is_told_whole():
    """Its owner's policy has nothing to do with it."""
    session, _ = device(seen=Seen(epsilon=12345.6789))
    status = last(hear(session, masked_round()), Status, STATUS)
    assert status.code == "signer" and "`edgefl keys epoch`" in status.reason and len(status.reason) <= REASON
    assert "keys epoch" in REMEDIES["signer"]


def test_i38_a_device_that_took_part_a_while_ago_waits_for_the_separation():
    maker = terms_maker(msgspec.structs.replace(PRIVACY, separation=5))
    refused(
        masked_round(7, maker=maker),
        "has taken part 4 rounds ago, and 5 must lie between",
        seen=Seen(1, 1, masked_round=3),
        code="rests",
    )
    session, _ = device(seen=Seen(1, 1, masked_round=2))
    assert of(hear(session, masked_round(7, maker=maker)), StartTraining)


def test_without_keys_no_round_is_masked():
    session = make_session("a")
    from machines import give

    feed(session, Connected(boot=7))
    give(session, MANIFEST)
    out = serve(session, give(session, masked_round()))
    assert not of(out, StartTraining)
    assert "no keys" in last(out, Status, STATUS).reason


# What leaves


def trained(round, *, residual=None, epochs=1, seed="1"):
    """The update of a job of this round, before the session signs it."""
    x = np.random.default_rng(0).normal(size=(20, 99)).astype(np.float32)
    y = np.arange(20) % 10
    job = TrainJob(MANIFEST, round, np.zeros(P, "<f4").tobytes(), 1234)
    return job, train_update(Trainer(PLAN, batch=10), job, "a", x, y, randomness=Drawn(seed))


def test_i35_masks_are_fresh_in_every_training():
    round = masked_round()
    terms = Terms.read(round.terms)
    blobs = [trained(round, seed=str(n))[1].blob for n in range(3)]
    packed = {bytes(read(memoryview(blob)[UpdateHeader.SIZE :], terms).packed) for blob in blobs}
    boxes = {read(memoryview(blob)[UpdateHeader.SIZE :], terms).boxes for blob in blobs}
    assert len(packed) == len(boxes) == 3


def test_header_and_status_tell_nothing_of_the_device():
    session, _ = device()
    round = masked_round()
    (start,) = of(hear(session, round), StartTraining)
    _, made = trained(round)
    out = feed(session, Trained(start.job, made.blob, made.slots))
    (save,) = of(out, SaveUpdate)
    header = UpdateHeader.from_bytes(save.outbox.blob)
    assert replace_size(header) == UpdateHeader.masked()
    terms = Terms.read(round.terms)
    found = read(memoryview(save.outbox.blob)[header.size :], terms)
    assert found.is_signed(device_key("a").public)
    check(save.outbox.blob, Context(FEDERATION, 1, RUN, 1, 0, "a", 1), device_key("a").public)
    assert all(status.num_examples == 0 for status in statuses(out))
    assert not save.slots
    assert of(out, SaveSeen)[-1].seen.masked_round == 1
    kinds = [type(action) for action in out]
    assert kinds.index(SaveSeen) < kinds.index(SaveUpdate), "what was spent is durable before it can leave"


def replace_size(header: UpdateHeader) -> UpdateHeader:
    return msgspec.structs.replace(header, size=UpdateHeader.SIZE)


def statuses(actions) -> list[Status]:
    from edgefl.machine import Publish
    from edgefl.protocol.messages import decode

    return [decode(Status, action.payload) for action in of(actions, Publish, STATUS)]


def test_an_update_that_was_masked_under_other_terms_is_not_sent_for_these():
    """The aggregator has started again with another model: the device trains once more, and sends no old mask."""
    first, second = masked_round(), masked_round(maker=terms_maker(msgspec.structs.replace(PRIVACY, clip=1.0)))
    second = msgspec.structs.replace(second, attempt=2)
    session, _ = device()
    (start,) = of(hear(session, first), StartTraining)
    (save,) = of(feed(session, Trained(start.job, trained(first)[1].blob)), SaveUpdate)
    saved = save.outbox
    session, _ = device(outbox=saved)
    assert of(hear(session, second), StartTraining)
    session, _ = device(outbox=saved)
    again = hear(session, msgspec.structs.replace(first, attempt=2))
    assert not of(again, StartTraining) and any("/u/1/" in action.topic for action in again if hasattr(action, "topic"))


def test_every_device_has_a_key_of_its_own():
    assert len({device_key(name).public for name in DEVICES} | {SIGNER.public}) == len(DEVICES) + 1
    assert party(helper_keys()).key != party(helper_keys(epoch=2)).key
