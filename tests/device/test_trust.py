"""A device with keys: which rounds it believes, and what it says of the others."""

from __future__ import annotations

import msgspec
import pytest
from keyed import (
    DEVICE_KEYS,
    SIGNER,
    THIEF,
    TODAY,
    certificate,
    joined,
    manifest,
    receipt_of,
    round_of,
    sealed,
    seen_in,
    signed_round,
    starts,
    train,
)
from machines import (
    BLOB,
    FEDERATION,
    MANIFEST,
    PARAMS,
    RUN,
    STATUS,
    TOPICS,
    blob_of,
    feed,
    last,
    make_manifest,
    make_round,
    make_session,
    model_parts,
    of,
    received,
    updates,
)

from edgefl.device.events import DropUpdate, SaveSeen, SaveUpdate, StartTraining, Trained
from edgefl.machine import Connected, Note, Sent
from edgefl.protocol import signed_update
from edgefl.protocol.messages import Status, encode
from edgefl.protocol.signed_update import Context
from edgefl.trust.seal import seal


def test_a_sealed_round_is_trained_and_what_was_seen_is_stored_before():
    session, _ = joined()
    out = train(session, round_of(3, 2), version=2)
    assert starts(out) == 1 and session.dropped == 0
    store = next(i for i, action in enumerate(out) if isinstance(action, SaveSeen))
    assert store < next(i for i, action in enumerate(out) if isinstance(action, StartTraining))
    seen = seen_in(out)
    assert (seen.serial, seen.epoch, seen.run, seen.attempt, seen.round, seen.version) == (1, 1, RUN, 1, 3, 2)
    assert (seen.chain, seen.model, seen.issued) == (session.round.chain, session.round.model_sha256, TODAY)


def test_the_update_is_signed_once_when_it_is_saved():
    session, _ = joined()
    (start,) = of(train(session, round_of(3, 2), version=2), StartTraining)
    out = feed(session, Trained(start.job, BLOB), now=1.0)
    saved = of(out, SaveUpdate)[0].outbox.blob
    context = Context(FEDERATION, 1, RUN, 3, 2, "a", 1)
    signed_update.check(saved, context, DEVICE_KEYS["a"].public)
    assert saved == signed_update.sign(BLOB, context, DEVICE_KEYS["a"]) and len(saved) == len(BLOB) + 64
    assert of(out, SaveUpdate)[0].origin.signer == session.trust.signer != ""
    for _ in range(4):
        out += feed(session, *(Sent(p.token, True) for p in updates(out)), now=2.0)
    assert blob_of(updates(out)) == saved


@pytest.mark.parametrize("key", [None, "b"], ids=["without a key", "with its former key"])
def test_an_update_that_was_saved_before_this_key_is_trained_again(key):
    """A device that is enrolled anew has another key, and may find an update of its former life: no aggregator takes
    that, and none answers it."""
    first, _ = joined()
    (start,) = of(train(first, round_of(3, 2), version=2), StartTraining)
    saved = of(feed(first, Trained(start.job, BLOB), now=1.0), SaveUpdate)[0].outbox
    context = Context(FEDERATION, 1, RUN, 3, 2, "a", 1)
    other = BLOB if key is None else signed_update.sign(BLOB, context, DEVICE_KEYS[key])
    session, out = joined(outbox=msgspec.structs.replace(saved, blob=other))
    assert of(out, DropUpdate) == [DropUpdate(applied=False)]
    assert starts(train(session, round_of(3, 2), version=2)) == 1
    session, out = joined(outbox=saved)
    out += feed(session, round_of(3, 2))
    assert not of(out, DropUpdate) and updates(out) and not starts(out)


def test_i18_what_no_key_or_another_key_has_sealed_is_dropped_and_told_and_ends_nothing():
    session, _ = joined()
    (start,) = of(train(session, round_of(1, 0)), StartTraining)
    newer = signed_round(2, 1, 1, issued=TODAY + 9)
    forged = [
        received(TOPICS.round, newer),
        round_of(2, 1, 1, key=THIEF),
        sealed(TOPICS.round, newer, THIEF, certificate(SIGNER)),
        sealed(TOPICS.round, newer, THIEF, certificate(THIEF, root=THIEF)),
        sealed(TOPICS.round, newer, SIGNER, certificate(federation="other")),
        msgspec.structs.replace(sealed(TOPICS.manifest, newer), topic=TOPICS.round),
        received(TOPICS.manifest, make_manifest(run="f" * 16)),
    ]
    forged[1] = sealed(TOPICS.round, newer, THIEF, certificate(THIEF, root=THIEF, serial=9, epoch=9))
    out = feed(session, *forged, now=1.0)
    assert session.forged == session.dropped == len(forged) and session.round.round == 1
    status = last(out, Status, STATUS)
    assert (status.state, status.code) == ("training", "signer") and "sealed" in status.reason
    assert len([action for action in of(out, Note) if action.level == "warning"]) == len(forged)
    assert len([1 for action in out if getattr(action, "topic", "") == STATUS]) == 1, "one status, not one a message"
    assert session.work is not None and updates(feed(session, Trained(start.job, BLOB), now=2.0))


def test_i18_a_forged_receipt_or_one_for_another_device_settles_nothing():
    session, _ = joined()
    (start,) = of(train(session, round_of(1, 0)), StartTraining)
    feed(session, Trained(start.job, BLOB), now=1.0)
    others = receipt_of(device="b")
    bad = [
        receipt_of(key=THIEF),
        receipt_of(run="f" * 16),
        msgspec.structs.replace(others, topic=TOPICS.inbox("a")),
        receipt_of("rejected", key=THIEF),
    ]
    out = feed(session, *bad, now=2.0)
    assert session.forged == len(bad) and not session.work.counted and not of(out, DropUpdate)
    feed(session, receipt_of(), now=3.0)
    assert session.work.counted


def test_i20_a_forged_attempt_locks_nobody_out():
    session, _ = joined()
    train(session, round_of(1, 0))
    highest = 2**32 - 1
    feed(session, sealed(TOPICS.round, signed_round(highest, 5, highest), THIEF), now=1.0)
    assert session.round.round == 1 and session.forged == 1
    out = train(session, round_of(2, 0, issued=TODAY + 5), now=2.0)
    assert starts(out) == 1 and session.round.round == 2


def test_i19_a_replayed_round_is_dropped_and_the_newer_one_goes_on():
    session, _ = joined()
    old = round_of(1, 0)
    train(session, old)
    train(session, round_of(2, 1, issued=TODAY + 5), now=1.0, version=1)
    work = session.work
    out = feed(session, old, now=2.0)
    assert session.forged == 1 and session.round.round == 2 and session.work is work
    assert last(out, Status, STATUS).state == "training"


def test_i19_a_replay_fails_across_a_restart():
    session, _ = joined()
    old = round_of(1, 0)
    train(session, old)
    seen = seen_in(train(session, round_of(2, 1, issued=TODAY + 5), now=1.0, version=1))
    again, out = joined(seen=seen)
    assert not of(out, SaveSeen)
    assert not starts(train(again, old)) and again.forged == 1 and again.round is None
    assert starts(train(again, round_of(2, 1, issued=TODAY + 5), version=1)) == 1


def test_i19_a_replayed_manifest_does_not_end_the_round():
    session, _ = joined()
    old = manifest(message=make_manifest(part_bytes=512))
    train(session, round_of(1, 0))
    work = session.work
    feed(session, old, now=1.0)
    assert session.terms.manifest.id == MANIFEST.id and session.work is work
    newer = make_manifest(part_bytes=512)
    feed(session, round_of(2, 0, manifest=newer, issued=TODAY + 5), now=2.0)
    assert session.terms.manifest.id == newer.id, "a round has named it"


def test_i20_a_restored_aggregator_of_an_older_attempt_is_not_believed_and_the_status_says_why():
    session, _ = joined()
    train(session, round_of(57, 56, 9), version=56)
    work = session.work
    out = feed(session, round_of(40, 39, 2, issued=TODAY + 60, history="x"), now=2.0)
    status = last(out, Status, STATUS)
    assert (status.state, status.code) == ("training", "signer") and "edgefl keys epoch" in status.reason
    assert session.work is work, "it may be a replay: it ends nothing"


@pytest.mark.parametrize("attempt", [1, 2])
def test_i20_a_roll_back_by_the_signer_is_refused_with_a_reason(attempt):
    session, _ = joined()
    train(session, round_of(5, 4), version=4)
    out = feed(session, round_of(6, 3, attempt, issued=TODAY + 60), now=1.0)
    status = last(out, Status, STATUS)
    assert (status.state, status.code) == ("trouble", "signer") and "edgefl keys epoch" in status.reason
    assert session.work is None and session.forged == 0
    out = train(session, round_of(6, 5, attempt, issued=TODAY + 90), now=2.0, version=5)
    assert starts(out) == 1 and last(out, Status, STATUS).state == "training"


FORKS = {
    "another history of the same version": {"history": "x"},
    "another model as the same version": {"params": -PARAMS},
    "a next version that does not follow": {"history": "x", "version": 5},
    "another run": {"run": "f" * 16},
}


@pytest.mark.parametrize("change", FORKS.values(), ids=FORKS)
def test_i20_a_fork_is_refused_with_a_reason(change):
    session, _ = joined()
    train(session, round_of(5, 4), version=4)
    fork = round_of(**{"round": 6, "version": 4, "attempt": 1, "issued": TODAY + 60} | change)
    out = feed(session, fork, now=1.0)
    status = last(out, Status, STATUS)
    assert (status.state, status.code) == ("trouble", "signer") and session.work is None


def test_i20_a_fork_is_noticed_across_a_restart_of_both():
    session, _ = joined()
    seen = seen_in(train(session, round_of(5, 4), version=4))
    again, _ = joined(seen=seen)
    assert not starts(train(again, round_of(6, 5, 9, history="x", issued=TODAY + 60), version=5))
    assert last(feed(again, Connected(boot=8)), Status, STATUS).code == "signer"


def test_a_restarted_aggregator_may_encode_the_same_version_in_another_way():
    """With a lossy downlink its first keyframe has other bytes. The chain says that the model behind it is the same."""
    session, _ = joined()
    train(session, round_of(5, 4), version=4)
    out = train(session, round_of(5, 4, 2, params=-PARAMS, issued=TODAY + 60), now=1.0, version=4, params=-PARAMS)
    assert session.round.attempt == 2 and session.status.trouble is None and starts(out) == 0


def test_the_warning_ends_with_a_sound_round_ten_minutes_later():
    session, _ = joined()
    train(session, round_of(1, 0))
    feed(session, round_of(2, 0, key=THIEF), now=10.0)
    out = train(session, round_of(2, 0, issued=TODAY + 5), now=20.0)
    assert last(out, Status, STATUS) is None or last(out, Status, STATUS).code == "signer"
    out = train(session, round_of(3, 0, issued=TODAY + 9), now=700.0)
    assert last(out, Status, STATUS).code == ""


def test_without_keys_a_sealed_message_says_what_is_missing():
    session = make_session()
    out = feed(session, Connected(boot=1), manifest())
    assert session.terms is None and "[keys] dir" in of(out, Note)[-1].text
    parts = [msgspec.structs.replace(part, payload=part.payload) for part in model_parts()]
    feed(session, received(TOPICS.manifest, MANIFEST), received(TOPICS.round, make_round()), *parts)
    assert session.dropped == 1


def test_anything_on_a_sealed_topic_is_dropped_without_harm():
    session, _ = joined()
    for payload in (b"{}", b"\n{}", b"x" * 70_000, seal(b"{}", TOPICS.round, SIGNER), encode(MANIFEST) + b"\n{}"):
        feed(session, received(TOPICS.round, payload))
        feed(session, received(TOPICS.manifest, payload))
        feed(session, received(TOPICS.inbox("a"), payload))
    assert session.terms.manifest.id == MANIFEST.id and session.forged > 0
