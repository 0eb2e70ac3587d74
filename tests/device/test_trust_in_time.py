"""A device with keys, over time: rounds and certificates that expire, clocks, stolen keys, and the next epoch."""

from __future__ import annotations

from keyed import (
    LAST,
    SIGNER,
    THIEF,
    TODAY,
    certificate,
    joined,
    keyed_session,
    manifest,
    receipt_of,
    round_of,
    seen_in,
    starts,
    train,
)
from machines import BLOB, STATUS, feed, last, make_manifest, of

from edgefl.device.events import DropUpdate, Failed, SaveSeen, StartTraining, Trained
from edgefl.machine import Connected, WallTime
from edgefl.protocol.messages import Status


def test_i20_an_expired_round_is_not_trained():
    session, _ = joined()
    feed(session, WallTime(TODAY + 100.0))
    out = train(session, round_of(1, 0, expires=TODAY + 50))
    assert not starts(out) and session.round is None and session.forged == 1
    assert last(out, Status, STATUS).code == "signer"
    assert starts(train(session, round_of(1, 0, issued=TODAY + 90, expires=TODAY + 200))) == 1


def test_i20_a_device_without_a_clock_goes_by_the_newest_round_that_it_has_seen():
    session, _ = joined()
    feed(session, WallTime(100.0, trusted=False))
    seen = seen_in(train(session, round_of(1, 0, issued=TODAY + 5000, expires=TODAY + 9000)))
    again, _ = joined(seen=seen)
    feed(again, WallTime(200.0, trusted=False))
    replay = round_of(2, 0, issued=TODAY, expires=TODAY + 4000)
    assert not starts(train(again, replay)) and again.forged == 1, "issued before what was seen, and over"
    assert starts(train(again, round_of(2, 0, issued=TODAY + 6000, expires=TODAY + 9000))) == 1


def test_a_round_from_the_far_future_moves_no_clock_of_a_device_that_has_one():
    session, _ = joined()
    feed(session, WallTime(TODAY + 0.0))
    far = TODAY + 10**8
    train(session, round_of(1, 0, issued=far, expires=far + 100))
    assert session.trust.seen.issued <= TODAY + 24 * 3600
    assert starts(train(session, round_of(2, 0, issued=TODAY + 10, expires=TODAY + 10**6), now=1.0)) == 1


def test_a_round_from_the_far_future_locks_no_device_out_once_its_clock_is_set():
    session, _ = joined()
    train(session, round_of(1, 0, issued=2**53, expires=2**53))
    again, _ = joined(seen=session.trust.seen)
    feed(again, WallTime(TODAY + 60.0), manifest())
    out = train(again, round_of(2, 0, issued=TODAY + 60, expires=TODAY + 60 + 25 * 3600), now=1.0)
    assert starts(out) == 1 and again.forged == 0


def test_a_device_without_a_clock_is_won_back_by_the_next_epoch_whatever_a_thief_has_signed():
    session, _ = joined()
    train(session, round_of(1, 0, issued=2**53, expires=2**53))
    again = keyed_session(seen=session.trust.seen)
    epoch = certificate(SIGNER, serial=2, epoch=2, not_after=LAST + 10**6)
    feed(again, Connected(boot=8), manifest(cert=epoch), now=1.0)
    out = train(again, round_of(1, 0, issued=TODAY, expires=TODAY + 100, cert=epoch), now=2.0)
    assert starts(out) == 1 and again.forged == 0


def test_a_stolen_signing_key_is_replaced_by_the_root():
    session, _ = joined()
    train(session, round_of(1, 0))
    next_cert = certificate(THIEF, serial=2)  # the same machine, with another key
    out = train(session, round_of(2, 0, key=THIEF, cert=next_cert, issued=TODAY + 5), now=1.0)
    assert starts(out) == 1 and seen_in(out).serial == 2
    out = feed(session, round_of(3, 0, issued=TODAY + 90), now=2.0)  # by the stolen key
    assert session.forged == 1 and session.round.round == 2 and last(out, Status, STATUS).state == "training"
    again, _ = joined(seen=session.trust.seen)  # which refuses the manifest of the stolen key too
    assert again.terms is None and again.forged == 1


def test_a_restored_aggregator_is_believed_in_a_new_epoch_and_what_was_made_before_is_dropped():
    session, _ = joined()
    (start,) = of(train(session, round_of(57, 56, 9), version=56), StartTraining)
    feed(session, Trained(start.job, BLOB), now=1.0)
    assert session.work is not None
    epoch = certificate(serial=2, epoch=2)
    out = train(session, round_of(40, 39, 2, issued=TODAY + 90, history="x", cert=epoch), now=3.0, version=39)
    assert of(out, DropUpdate) and starts(out) == 1 and last(out, Status, STATUS).state == "training"
    seen = seen_in(out)
    assert (seen.epoch, seen.attempt, seen.version) == (2, 2, 39)
    kinds = [type(action) for action in out]
    assert kinds.index(DropUpdate) < kinds.index(SaveSeen), "killed in between, it begins the epoch without the update"
    feed(session, round_of(58, 57, 9, issued=TODAY + 99), now=4.0)  # of the old epoch
    assert session.forged == 1 and session.round.round == 40


def test_a_new_epoch_takes_back_what_the_device_has_told_of_a_round_before():
    """Its manifest comes before any round, and the rounds wait for devices that are not in trouble."""
    session, _ = joined()
    (start,) = of(train(session, round_of(57, 56, 9), version=56), StartTraining)
    out = feed(session, Failed(start.job, "out of memory"), now=1.0)
    assert last(out, Status, STATUS).reason
    out = feed(session, manifest(cert=certificate(serial=2, epoch=2)), now=3.0)
    assert (last(out, Status, STATUS).state, last(out, Status, STATUS).reason) == ("ready", "")


def test_i19_what_the_same_key_signed_in_an_earlier_epoch_is_nothing_in_this_one_whatever_certificate_is_with_it():
    session, _ = joined()
    epoch = certificate(serial=2, epoch=2)
    (start,) = of(train(session, round_of(40, 39, 2, cert=epoch), version=39), StartTraining)
    feed(session, Trained(start.job, BLOB), now=1.0)
    old = [
        round_of(58, 57, 9, issued=TODAY + 99, cert=epoch, epoch=1),
        manifest(message=make_manifest(part_bytes=512), cert=epoch, epoch=1),
        receipt_of(round=40, attempt=2, epoch=1),
    ]
    out = feed(session, *old, now=2.0)
    assert session.forged == len(old) and session.round.round == 40 and not of(out, DropUpdate)
    assert not session.work.counted
    feed(session, receipt_of(round=40, attempt=2, epoch=2), now=3.0)
    assert session.work.counted


def test_an_expired_certificate_and_one_that_is_not_valid_yet_sign_nothing():
    for dates in ({"not_after": TODAY - 10}, {"not_before": TODAY + 10**6}):
        session = keyed_session()
        feed(session, WallTime(float(TODAY)), Connected(boot=1), manifest(cert=certificate(**dates)))
        assert session.terms is None and session.forged == 1
