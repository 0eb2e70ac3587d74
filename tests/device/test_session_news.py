"""Rounds that ask for new data only: a device takes part when its data have changed since they last counted."""

from __future__ import annotations

import pytest
from machines import (
    BLOB,
    STATUS,
    feed,
    give,
    last,
    make_manifest,
    make_round,
    make_session,
    of,
    receipt,
    serve,
    updates,
)

from edgefl.device.events import DataStamp, DropUpdate, SaveUpdate, StartTraining, Trained
from edgefl.machine import Connected, Publish
from edgefl.protocol.messages import Status

MANIFEST = make_manifest()


def news_round(number=1, version=0, **changes):
    return make_round(number, version, only_new_data=True, **changes)


def begin(round=None, stamp=5, **options):
    session = make_session(**options)
    out = feed(session, DataStamp(stamp), Connected(boot=7)) + give(session, MANIFEST)
    return session, out + serve(session, give(session, round or news_round()))


def told(actions):
    return last(actions, Status, STATUS)


def counted(stamp=5, **options):
    """A session whose update of round 1 has been counted, and what it did at the receipt."""
    session, out = begin(stamp=stamp, **options)
    (start,) = of(out, StartTraining)
    out = feed(session, Trained(start.job, BLOB, {}, stamp))
    assert of(out, SaveUpdate)[0].outbox.stamp == stamp and updates(out)
    feed(session, receipt())
    return session, out


def test_a_device_that_reports_says_first_that_nothing_is_new_and_takes_no_part_until_its_data_change():
    session, out = counted()
    topics = [p.topic for p in of(out, Publish)]
    assert not told(out).fresh and topics.index(STATUS) < topics.index(updates(out)[0].topic)
    out = give(session, news_round(2, 1))
    assert of(out, DropUpdate) == [DropUpdate(applied=True)]
    assert not of(serve(session, out), StartTraining) and session.wants_news
    assert feed(session, DataStamp(5), now=10.0) == []
    out = feed(session, DataStamp(6), now=20.0)
    assert told(out).fresh and of(serve(session, out), StartTraining), "the open round has place for it"


@pytest.mark.parametrize("attempt", [1, 2])
def test_what_counted_in_an_abandoned_round_is_new_still(attempt):
    session, _ = counted()
    out = give(session, news_round(2, 0, attempt=attempt, state="waiting"))
    assert of(out, DropUpdate) == [DropUpdate(applied=False)] and told(out).fresh
    assert of(serve(session, give(session, news_round(2, 0, attempt=attempt))), StartTraining)


def test_a_counted_update_is_reported_again_to_the_next_attempt_of_its_round():
    session, _ = counted()
    assert updates(give(session, news_round(attempt=2)))


def test_data_that_change_while_they_are_trained_on_are_new_afterwards():
    session, out = begin()
    (start,) = of(out, StartTraining)
    feed(session, DataStamp(6))
    assert not told(feed(session, Trained(start.job, BLOB, {}, 5))).fresh
    assert session.data_stamp == 5, "the host looks again"
    assert told(feed(session, DataStamp(6))).fresh
    assert session.is_fresh and told(feed(session, DataStamp(6))) is None


@pytest.mark.parametrize("in_model, takes_part", [(5, False), (4, True), (0, True)])
def test_a_restarted_device_knows_what_is_in_the_model(in_model, takes_part):
    _, out = begin(in_model=in_model)
    assert bool(of(out, StartTraining)) is takes_part and told(out).fresh is takes_part


def test_a_device_that_can_not_tell_is_new_always():
    _, out = begin(stamp=0, in_model=5)
    assert of(out, StartTraining)


def test_where_rounds_take_any_data_the_status_says_nothing_of_them():
    session, out = begin(make_round(), in_model=5)
    assert of(out, StartTraining) and told(out).fresh and not session.wants_news


def test_a_round_that_only_evaluates_leaves_the_data_new():
    session, out = begin(news_round(mode="evaluate"))
    (start,) = of(out, StartTraining)
    feed(session, Trained(start.job, BLOB[:40], {}, 5), receipt())
    give(session, news_round(2, 0))
    assert session.is_fresh
