"""A device on a slow link asks for nothing twice, and sends nothing twice, while the first copy is still on its way."""

from __future__ import annotations

import pytest
from machines import (
    BLOB,
    INBOX,
    MANIFEST,
    feed,
    fetching,
    give,
    make_manifest,
    make_round,
    make_session,
    model_parts,
    of,
    received,
    updates,
)

from edgefl.device.events import Outbox
from edgefl.device.model.blob_fetch import WINDOW
from edgefl.device.patience import LEAST_AT_ONCE
from edgefl.machine import Connected, Disconnected, Flow, Sent, Subscribe, Tick
from edgefl.protocol.envelope import Envelope
from edgefl.protocol.inbox import Missing


def flow(received=0, acknowledged=0, pending=0, arriving=0, rate=10.0) -> Flow:
    return Flow(received, acknowledged, pending, arriving, rate, rate, 60.0)


def session_on_a_slow_link(**options):
    session = make_session(**options)
    feed(session, flow(), Connected(boot=7))
    return session


def fetching_slowly():
    session = session_on_a_slow_link()
    give(session, MANIFEST)
    return session, give(session, make_round())


def model_topics(actions) -> list[str]:
    return [topic for action in of(actions, Subscribe) for topic in action.topics if "/model/" in topic]


def reporting_slowly(part_bytes=256):
    manifest = make_manifest(part_bytes=part_bytes)
    session = session_on_a_slow_link(outbox=Outbox(manifest.id, 1, 0, BLOB))
    give(session, manifest)
    return session, give(session, make_round(manifest=manifest))


def test_few_parts_are_asked_for_at_once_on_a_slow_link_and_more_when_it_proves_quick():
    session, out = fetching_slowly()
    assert len(model_topics(out)) == LEAST_AT_ONCE
    parts = {part.topic: part for part in model_parts()}
    out = feed(session, flow(rate=1e6), parts[model_topics(out)[0]], now=1.0)
    assert len(model_topics(out)) == WINDOW - LEAST_AT_ONCE + 1


def test_a_model_that_still_arrives_is_not_subscribed_to_again():
    session, _ = fetching_slowly()
    for seconds in range(1, 1000):
        out = feed(session, flow(received=seconds, arriving=1 + seconds), Tick(), now=float(seconds))
        assert not model_topics(out)


def test_a_model_that_does_not_arrive_is_subscribed_to_again():
    session, asked = fetching_slowly()
    feed(session, flow(received=10, arriving=10), now=1.0)
    assert not model_topics(feed(session, Tick(), now=31.0))  # something came meanwhile
    assert model_topics(feed(session, Tick(), now=61.0)) == model_topics(asked)  # and then no more


def test_pings_that_are_answered_are_no_model_that_arrives():
    session, asked = fetching_slowly()
    feed(session, flow(received=2, acknowledged=2), now=20.0)
    assert model_topics(feed(session, Tick(), now=30.0)) == model_topics(asked)


def test_other_data_that_arrive_for_ever_do_not_keep_a_lost_part_from_being_asked_for_again():
    session, asked = fetching_slowly()
    again = []
    for seconds in range(1, 200):
        again += model_topics(feed(session, flow(received=3000 * seconds, arriving=7), Tick(), now=float(seconds)))
    assert again[: len(model_topics(asked))] == model_topics(asked)


def test_a_subscription_that_waits_behind_what_drains_is_not_repeated():
    session, asked = fetching_slowly()
    for seconds in range(1, 500):
        out = feed(session, flow(acknowledged=seconds, pending=1000), Tick(), now=float(seconds))
        assert not model_topics(out)
    assert not model_topics(feed(session, Tick(), now=600.0))  # the last of it drained after this wait had begun
    assert model_topics(feed(session, Tick(), now=1000.0)) == model_topics(asked)


def test_an_update_that_still_drains_is_not_sent_again():
    session, out = reporting_slowly()
    assert len(updates(out)) == LEAST_AT_ONCE
    for seconds in range(1, 1000):
        out = feed(session, flow(acknowledged=seconds, pending=10_000), Tick(), now=float(seconds))
        assert not updates(out)


def test_a_part_that_is_not_acknowledged_is_not_sent_again_on_a_connection_that_lives():
    session, _ = reporting_slowly()
    for seconds in range(1, 590):
        assert not updates(feed(session, Tick(), now=float(seconds)))
    again = updates(feed(session, Disconnected(), Connected(boot=8), now=590.0))
    assert len(again) == LEAST_AT_ONCE  # which the new connection does not have


def test_a_broker_that_never_acknowledges_is_tried_again_after_ten_minutes():
    session, _ = reporting_slowly()
    again = [now for now in range(1, 700) if updates(feed(session, Tick(), now=float(now)))]
    assert again and 600 <= again[0] < 640


def test_after_the_last_acknowledgement_the_receipt_has_as_long_as_ever():
    session, out = reporting_slowly()
    sent, now = updates(out), 0.0
    while sent:  # one part a minute: far longer than patience
        now += 60.0
        acknowledged = [flow(acknowledged=int(now)), *(Sent(part.token, True) for part in sent)]
        sent = updates(feed(session, *acknowledged, now=now))
    assert not updates(feed(session, Tick(), now=now + 14.0))
    assert updates(feed(session, Tick(), now=now + 31.0))


def test_a_request_that_crosses_an_acknowledgement_is_not_answered_and_the_next_one_is():
    session, out = reporting_slowly()
    first = updates(out)[0]
    feed(session, flow(acknowledged=300, pending=1), Sent(first.token, True), now=60.0)
    assert not updates(feed(session, received(INBOX, Missing(1, [0, 1])), now=60.1))
    while out:
        out = feed(session, *(Sent(part.token, True) for part in updates(out)), now=61.0)
        assert first.topic not in {part.topic for part in updates(out)}
    (again,) = updates(feed(session, received(INBOX, Missing(1, [0])), now=66.0))
    assert again.topic == first.topic


def test_parts_of_an_update_take_at_most_a_quarter_of_the_keep_alive():
    _, out = reporting_slowly(part_bytes=4096)
    (first, *_) = updates(out)
    assert Envelope.from_bytes(first.payload).part_bytes == 256  # 10 bytes/s x 60 s / 4 is below the least


@pytest.mark.parametrize(("rate", "part_bytes"), [(100.0, 1500), (1e6, 4096)])
def test_part_size_follows_the_rate_up_to_what_the_manifest_says(rate, part_bytes):
    manifest = make_manifest(part_bytes=4096)
    session = make_session(outbox=Outbox(manifest.id, 1, 0, BLOB))
    feed(session, flow(rate=rate), Connected(boot=7))
    give(session, manifest)
    out = give(session, make_round(manifest=manifest))
    assert Envelope.from_bytes(updates(out)[0].payload).part_bytes == part_bytes


def test_an_update_is_cut_once_although_the_rate_changes():
    """The aggregator can't put parts of two cuts together."""
    manifest = make_manifest(part_bytes=4096)
    session = make_session(outbox=Outbox(manifest.id, 1, 0, BLOB))
    feed(session, flow(rate=100.0), Connected(boot=7))
    give(session, manifest)
    first = updates(give(session, make_round(manifest=manifest)))
    again = updates(feed(session, flow(rate=1e6)) + give(session, make_round(manifest=manifest, attempt=2)))
    assert {Envelope.from_bytes(part.payload).part_bytes for part in (first[0], again[0])} == {1500}


def test_without_a_host_that_measures_patience_is_what_it_was():
    session, asked = fetching()
    assert len(model_topics(asked)) == WINDOW
    assert model_topics(feed(session, Tick(), now=30.0)) == model_topics(asked)


def test_an_acknowledgement_of_an_earlier_report_acknowledges_nothing_of_the_next_one():
    """Found by simulation: both counted their parts from one, so that flowing parts seemed to have arrived."""
    session, out = reporting_slowly(part_bytes=256)
    earlier = [part.token for part in updates(out)]
    out = give(session, make_round(manifest=make_manifest(part_bytes=256), attempt=2))  # all may be lost: begin again
    again = [part.token for part in updates(out)]
    assert again and not set(earlier) & set(again)
