"""A device on a link so slow that rounds end before its model is here: it goes on with the fetch that is under way."""

from __future__ import annotations

from datetime import timezone

import numpy as np
import pytest
from machines import HASH, PARAMS, STATUS, TOPICS, P, feed, fetching, give, last, make_manifest, make_session, of
from msgspec.structs import replace

from edgefl.coordinator.model.downlink import Downlink
from edgefl.coordinator.model.retained_model import RetainedModel
from edgefl.device.events import CancelTraining, StartTraining
from edgefl.device.owner.budget import Limits
from edgefl.machine import Connected, Received, Subscribe, Unsubscribe, WallTime
from edgefl.protocol.messages import Status
from edgefl.protocol.round import Round

DELTAS = {"downlink": "ecq", "downlink_options": {"step": 5.0, "exact": "none"}}


class Aggregator:
    """Its model on the broker, and the rounds that it announces."""

    def __init__(self, **manifest):
        self.manifest = make_manifest(**manifest)
        self.params, self.version = PARAMS, 0
        self.downlink = Downlink(self.manifest, PARAMS, 0)
        self.retained: dict[str, bytes] = {}
        self._lies = RetainedModel(TOPICS, self.manifest, HASH)
        self._put()

    def _put(self):
        self.retained.update((p.topic, p.payload) for p in self._lies.put(self.downlink.payloads))

    def commit(self):
        self.version += 1
        self.params = self.params + np.random.default_rng(self.version).normal(size=P).astype(np.float32) / 100
        self.downlink.advance(self.params, self.version)
        self._put()
        self._lies.keep(self.downlink.payloads)

    def round(self, state="open", **changes) -> Round:
        d = self.downlink
        return Round(self.manifest.id, state, self.version + 1, 1, self.version, d.sha256, d.frames, 60.0, **changes)


class Link:
    """Brings retained parts one by one, in the order in which they were subscribed to."""

    def __init__(self, aggregator, session):
        self.aggregator, self.session = aggregator, session
        self.asked: list[str] = []  # by now
        self._queue: list[str] = []

    def take(self, actions):
        for action in actions:
            if isinstance(action, Subscribe):
                topics = [topic for topic in action.topics if "/model/" in topic]
                self.asked += topics
                self._queue += topics
            elif isinstance(action, Unsubscribe):
                self._queue = [topic for topic in self._queue if topic not in action.topics]
        return list(actions)

    def bring(self, parts=1000):
        """So many parts arrive; what the device does."""
        out = []
        while self._queue and parts:
            topic, parts = self._queue.pop(0), parts - 1
            out += self.take(feed(self.session, Received(topic, self.aggregator.retained[topic])))
        return out


def slow(**manifest):
    aggregator = Aggregator(**manifest)
    session, out = fetching(aggregator.manifest, aggregator.round())
    link = Link(aggregator, session)
    link.take(out)
    return aggregator, session, link


@pytest.mark.parametrize("span", [1, 4])
def test_the_next_round_goes_on_with_the_payload_that_is_under_way(span):
    aggregator, session, link = slow(**DELTAS, span=span)
    keyframe = -(-aggregator.downlink.frames[0].keyframe // aggregator.manifest.part_bytes)
    for _ in range((keyframe - 1) // 2):
        assert not of(link.bring(2), StartTraining)
        aggregator.commit()
        link.take(give(session, aggregator.round()))
    (start,) = of(link.bring(), StartTraining)
    assert (start.job.round.version, start.job.params) == (aggregator.version, aggregator.downlink.shown.tobytes())
    whole = [topic for topic in link.asked if topic.startswith(TOPICS.model(0, 0)[:-1])]
    assert len(whole) == len(set(whole)) == keyframe, "no part of the first model was asked for twice"


def test_what_was_decoded_on_the_way_is_not_fetched_again():
    """With a span, the newest version's delta makes way for the next one's, which starts from the same anchor."""
    aggregator, session, link = slow(**DELTAS, span=4)
    aggregator.commit()
    link.take(give(session, aggregator.round()))
    keyframe = -(-aggregator.downlink.frames[0].keyframe // aggregator.manifest.part_bytes)
    assert not of(link.bring(keyframe), StartTraining), "the delta is under way"
    aggregator.commit()
    asked = len(link.asked)
    link.take(give(session, aggregator.round()))
    (start,) = of(link.bring(), StartTraining)
    assert start.job.params == aggregator.downlink.shown.tobytes()
    slot = aggregator.downlink.frames[-1].delta_slot
    assert {topic.rsplit("/", 1)[0] for topic in link.asked[asked:]} == {TOPICS.model(slot, 0)[:-2]}


def test_an_earlier_model_that_the_fetch_has_passed_is_trained_at_once():
    """An aggregator whose newest model was damaged goes back to the one before."""
    aggregator, session, link = slow(**DELTAS)
    earlier, shown = aggregator.round(), aggregator.downlink.shown.tobytes()
    aggregator.commit()
    link.take(give(session, aggregator.round()))
    keyframe = -(-aggregator.downlink.frames[0].keyframe // aggregator.manifest.part_bytes)
    assert not of(link.bring(keyframe), StartTraining), "the delta is under way"
    (start,) = of(link.take(give(session, replace(earlier, attempt=2))), StartTraining)
    assert start.job.params == shown


@pytest.mark.parametrize("manifest", [DELTAS, {}], ids=["deltas", "whole models"])
def test_a_device_that_rounds_do_not_wait_for_fetches_while_none_is_open(manifest):
    aggregator, session, link = slow(**manifest)
    link.bring(2)
    aggregator.commit()
    link.take(give(session, aggregator.round("waiting", unearned=["a"])))
    out = link.bring()
    assert not of(out, StartTraining), "there is no round to train for"
    assert session.work is None
    out = link.take(give(session, aggregator.round(unearned=["a"])))
    (start,) = of(out, StartTraining)
    assert start.job.params == aggregator.downlink.shown.tobytes()
    assert last(out, Status, STATUS).state == "training"


@pytest.mark.parametrize("unearned", [[], ["b"]])
def test_other_devices_fetch_nothing_while_no_round_is_open(unearned):
    aggregator, session, link = slow(**DELTAS)
    link.bring(2)
    link.take(give(session, replace(aggregator.round("waiting", unearned=unearned), round=2)))  # 1 was abandoned
    assert not link.bring() and session.work is None


def test_a_named_device_that_fetches_nothing_begins_nothing_while_no_round_is_open():
    aggregator, session, link = slow(**DELTAS)
    link.bring()
    aggregator.commit()
    asked = len(link.asked)
    out = link.take(give(session, aggregator.round("waiting", unearned=["a"])))
    assert not of(out, CancelTraining) and len(link.asked) == asked, "it trains, and reports what it has begun"


def test_what_has_come_is_paid_once_from_a_byte_budget():
    """A budget that has room for one model and an update, and none for a model and a half."""
    noon = 1781092800.0
    aggregator = Aggregator(**DELTAS)
    session = make_session(limits=Limits(per_day=340_000, zone=timezone.utc))
    out = feed(session, WallTime(noon), Connected(boot=7)) + give(session, aggregator.manifest)
    link = Link(aggregator, session)
    link.take(out + give(session, aggregator.round()))
    for _ in range(5):
        link.bring(2)
        aggregator.commit()
        link.take(give(session, aggregator.round()))
    (start,) = of(link.bring(), StartTraining)
    assert start.job.params == aggregator.downlink.shown.tobytes() and session.status.trouble is None


def test_a_round_that_goes_back_to_a_version_that_was_decoded_on_the_way_begins_at_once():
    """Found by simulation: an aggregator that died had announced a model that it could not commit any more."""
    aggregator, session, link = slow(**DELTAS)
    first = aggregator.round()
    aggregator.commit()
    link.take(give(session, aggregator.round()))
    keyframe = -(-aggregator.downlink.frames[0].keyframe // aggregator.manifest.part_bytes)
    assert not of(link.bring(keyframe), StartTraining), "the delta is under way"
    (start,) = of(give(session, replace(first, attempt=2)), StartTraining)
    assert start.job.round.version == 0
