"""The model's topics on the MQTT broker: their number is bounded, and what no round needs is cleared."""

from __future__ import annotations

import pytest
from machines import HASH, PARAMS, TOPICS, feed, make_coordinator, make_manifest, of, report, status

from edgefl.coordinator.model.downlink import SLOTS, Payload
from edgefl.coordinator.model.retained_model import AT_ONCE, RetainedModel
from edgefl.machine import Connected, Disconnected, Publish, Sent, Stop
from edgefl.protocol.envelope import Envelope
from edgefl.protocol.messages import RETAINED_LIMIT, decode
from edgefl.protocol.round import Round

PARTS = 16  # of 256 bytes, in a raw32 model


def payload(slot, parts, version=1):
    return Payload(slot, version, 1, bytes(256 * parts))


def make_retained():
    return RetainedModel(TOPICS, make_manifest(), HASH)


def topics(actions):
    return [action.topic for action in actions]


def parts_of(slot, parts):
    return [TOPICS.model(slot, part) for part in parts]


def token_of(actions):
    """That of the last one; the others have none."""
    assert not any(action.token for action in actions[:-1])
    return actions[-1].token


def test_a_payload_is_put_once_and_again_where_the_broker_may_have_lost_it():
    model, payloads = make_retained(), [payload(0, 2), payload(3, 1)]
    out = model.put(payloads)
    assert topics(out) == [*parts_of(0, range(2)), *parts_of(3, range(1))]
    assert model.put(payloads) == []
    assert model.put(payloads, again=True) == out


def test_the_last_parts_of_a_slot_are_cleared_where_the_new_payload_is_shorter():
    model = make_retained()
    model.put([payload(0, 5)])
    cleared = model.keep([])
    assert model.on_sent(token_of(cleared), False) == []
    model.put([payload(0, 2, version=2)])
    assert topics(model.keep([payload(0, 2)])) == parts_of(0, range(2, 5))


def test_no_clear_follows_a_payload_that_has_been_put_in_its_place():
    """A clear that is under way reaches the broker before the payload; none is repeated after it."""
    model = make_retained()
    model.put([payload(0, 2)])
    under_way = model.keep([])
    model.put([payload(0, 2, version=2)])
    model.reconnected()
    assert model.keep([payload(0, 2)]) == []
    assert model.on_sent(token_of(under_way), True) == []
    assert topics(model.keep([])) == parts_of(0, range(2))


def test_an_acknowledgement_of_an_earlier_clear_settles_no_later_one():
    model = make_retained()
    model.put([payload(0, 1)])
    first = model.keep([])
    model.put([payload(0, 1, version=2)])
    model.keep([])
    (second,) = model.on_sent(token_of(first), True)
    assert second.topic == TOPICS.model(0, 0)


def test_a_clear_is_repeated_at_each_connection_until_it_is_acknowledged():
    model = make_retained()
    model.put([payload(0, 3)])
    first = model.keep([])
    assert model.on_sent(token_of(first), False) == []
    model.reconnected()
    again = model.keep([])
    assert topics(again) == topics(first) == parts_of(0, range(3))
    assert model.on_sent(token_of(first), True) == []  # of an earlier connection
    assert model.on_sent(token_of(again), True) == model.keep([]) == []


def test_a_few_are_handed_out_at_a_time_the_next_when_those_are_acknowledged():
    model = make_retained()
    model.put([payload(0, 2 * AT_ONCE + 5), payload(1, 5)])
    everything = parts_of(0, range(2 * AT_ONCE + 5)) + parts_of(1, range(5))
    first = model.keep([payload(1, 5)])
    assert topics(first) == everything[:AT_ONCE]
    assert model.keep([]) == []
    second = model.on_sent(token_of(first), True)
    assert topics(second) == everything[AT_ONCE : 2 * AT_ONCE]
    model.reconnected()
    again = model.keep([])  # what was acknowledged is not repeated
    assert topics(again) == topics(second)
    assert model.on_sent(token_of(second), True) == []
    third = model.on_sent(token_of(again), True)
    assert topics(third) == everything[2 * AT_ONCE :]
    assert model.on_sent(token_of(third), True) == []


def clears_in(actions):
    return [p for p in of(actions, Publish) if p.retain and not p.payload]


def swept(coordinator, actions):
    """The broker acknowledges all: what is cleared."""
    found, more = [], clears_in(actions)
    while more:
        assert len(more) <= AT_ONCE
        found += more
        more = clears_in(feed(coordinator, Sent(token_of(more), True)))
    return [p.topic for p in found]


class Retained(dict):
    """An MQTT broker's retained messages."""

    def take(self, actions):
        for message in of(actions, Publish):
            if message.retain and message.payload:
                self[message.topic] = message.payload
            elif message.retain:
                self.pop(message.topic, None)

    @property
    def model(self):
        return {topic for topic in self if topic.startswith(f"{TOPICS.base}/model/")}


@pytest.mark.parametrize("downlink", ["raw32", "ecq"])
@pytest.mark.parametrize("fault", ["killed", "cut"])
def test_a_fault_between_the_commit_and_the_clearing_leaves_nothing_behind(fault, downlink):
    """Without the sweep at the second connection the parts of old versions would never be cleared."""
    manifest, broker = make_manifest(downlink=downlink), Retained()
    coordinator = make_coordinator(manifest=manifest, min_reports=1)
    broker.take(feed(coordinator, status("a"), Connected()))
    for _ in range(12):
        out = report(coordinator, "a", round=coordinator.round, version=coordinator.version)
        broker.take([a for a in out if not (isinstance(a, Publish) and a.retain and not a.payload)])
    left = broker.model
    if fault == "killed":
        start = {"round": 13, "version": 12, "attempt": 2}
        coordinator = make_coordinator(manifest=manifest, min_reports=1, params=coordinator.params, start=start)
        feed(coordinator, status("a"))
    else:
        feed(coordinator, Disconnected())
    out = feed(coordinator, Connected())
    broker.take(out)
    for topic in swept(coordinator, out):
        broker.pop(topic, None)
    fresh = Retained()
    fresh.take(coordinator.announcer.everything(coordinator.fence.attempt))
    assert broker.model == fresh.model
    assert left - fresh.model


OWN = 0  # the first slot of an odd attempt
LEFT = [topic for slot in range(SLOTS) if slot != OWN for topic in parts_of(slot, range(PARTS))]


def test_what_the_broker_has_acknowledged_is_not_swept_again():
    coordinator = make_coordinator(min_reports=1, start={"round": 31, "version": 30})
    assert swept(coordinator, feed(coordinator, Connected())) == LEFT
    feed(coordinator, Disconnected())
    assert not clears_in(feed(coordinator, Connected()))


def test_a_sweep_goes_on_where_it_was_cut_off():
    coordinator = make_coordinator(min_reports=1, start={"round": 31, "version": 30})
    first = clears_in(feed(coordinator, Connected()))
    second = clears_in(feed(coordinator, Sent(token_of(first), True)))
    feed(coordinator, Sent(token_of(second), False), Disconnected())
    assert swept(coordinator, feed(coordinator, Connected())) == LEFT[AT_ONCE:]


def test_receipts_and_rounds_do_not_wait_for_a_sweep():
    coordinator = make_coordinator(min_reports=1, start={"round": 31, "version": 30})
    out = feed(coordinator, status("a"), Connected())
    out += report(coordinator, "a", round=31, version=30)
    published = of(out, Publish)
    rounds = [i for i, p in enumerate(published) if p.topic == TOPICS.round]
    assert decode(Round, published[rounds[-1]].payload, RETAINED_LIMIT).round == 32
    assert len(clears_in(published[: rounds[-1]])) <= AT_ONCE


@pytest.mark.parametrize("end", ["done", "stopped"])
def test_the_last_versions_parts_are_cleared_when_all_is_done_but_not_after_a_stop(end):
    """Nobody starts again after the end. After a stop the federation may be another aggregator's at any time, and the
    next start sweeps."""
    start = {"round": 31, "version": 30}
    coordinator = make_coordinator(min_reports=1, rounds=31 if end == "done" else None, start=start)
    out = feed(coordinator, status("a"), Connected())
    (first, *_), token = clears_in(out), token_of(clears_in(out))
    if end == "done":
        report(coordinator, "a", round=31, version=30)
        own = parts_of(OWN, range(PARTS))
        assert [first.topic, *swept(coordinator, feed(coordinator, Sent(token, True)))][-PARTS:] == own
    else:
        feed(coordinator, Stop())
        assert feed(coordinator, Sent(token, True)) == []


class Federation:
    """Coordinators that follow one another on one broker; `ever` has every topic of a model that was ever used."""

    def __init__(self, **manifest):
        self.manifest, self.broker, self.ever = make_manifest(**manifest), Retained(), set()
        self.params, self.version, self.attempt = PARAMS, 0, 0

    def take(self, actions):
        self.broker.take(actions)
        self.ever |= {p.topic for p in of(actions, Publish) if p.topic.startswith(f"{TOPICS.base}/model/")}

    def start(self):
        self.attempt += 1
        start = {"round": self.version + 1, "version": self.version, "attempt": self.attempt}
        self.coordinator = make_coordinator(manifest=self.manifest, min_reports=1, params=self.params, start=start)
        self.settle(feed(self.coordinator, status("a"), Connected()))

    def settle(self, out):
        """Until the broker has acknowledged every clear."""
        self.take(out)
        while clears := clears_in(out):
            out = feed(self.coordinator, Sent(token_of(clears), True))
            self.take(out)

    def commit(self):
        self.version += 1
        self.settle(report(self.coordinator, "a", round=self.version, version=self.version - 1))
        self.params = self.coordinator.params

    @property
    def named(self):
        """slot -> version and length, of each payload that the announced round names."""
        frames = decode(Round, self.broker[TOPICS.round], RETAINED_LIMIT).frames
        return {f.keyframe_slot: (f.version, f.keyframe) for f in frames if f.keyframe} | {
            f.delta_slot: (f.version, f.delta) for f in frames if f.delta
        }


ECQ = {"downlink": "ecq", "downlink_options": {"step": 5.0, "exact": "none"}}


CASES = [({}, 2000), (ECQ, 600), (ECQ | {"span": 7}, 600)]


@pytest.mark.parametrize(("manifest", "versions"), CASES, ids=["raw32", "ecq", "span"])
def test_i13_thousands_of_versions_use_few_topics(manifest, versions):
    federation = Federation(**manifest)
    for version in range(versions):
        if version % 97 == 0:  # killed, anywhere between two commits
            federation.start()
        federation.commit()
    longest = federation.coordinator.announcer.downlink.longest
    assert len(federation.ever) <= SLOTS * -(-longest // 256)
    used = {TOPICS.model_part(topic).slot for topic in federation.broker.model}
    assert used == set(federation.named), "and nothing lies there that the round does not name"


def test_a_slot_is_used_again_only_after_a_round_without_it():
    """What the announced round names stays as it is while the next version is put beside it; also at a start."""
    federation = Federation(**ECQ, span=3)
    federation.start()
    for version in range(150):
        before = federation.named if version else {}
        if version % 40 == 39:
            federation.start()
        federation.version += 1
        out = report(federation.coordinator, "a", round=federation.version, version=federation.version - 1)
        announced = next(i for i, a in enumerate(out) if isinstance(a, Publish) and a.topic == TOPICS.round)
        for action in of(out[:announced], Publish):
            where = TOPICS.model_part(action.topic)
            assert where is None or where.slot not in before
        federation.take(out)
        federation.params = federation.coordinator.params
        for slot, (number, length) in federation.named.items():
            parts = [Envelope.from_bytes(federation.broker[t]) for t in parts_of(slot, range(-(-length // 256)))]
            assert {(part.version, part.total) for part in parts} == {(number, length)}


@pytest.mark.parametrize("manifest", [{}, ECQ], ids=["raw32", "ecq"])
def test_a_start_leaves_the_slots_alone_that_the_round_before_it_names(manifest):
    federation = Federation(**manifest)
    for _ in range(6):
        federation.start()
        for _ in range(5):
            federation.commit()
        named, lying = federation.named, dict(federation.broker)
        federation.coordinator = None
        start = {"round": federation.version + 1, "version": federation.version, "attempt": federation.attempt + 1}
        successor = make_coordinator(manifest=federation.manifest, params=federation.params, start=start)
        out = feed(successor, status("a"), Connected())
        announced = next(i for i, a in enumerate(out) if isinstance(a, Publish) and a.topic == TOPICS.round)
        federation.broker.take(out[:announced])
        for slot in named:
            for topic in [t for t in lying if t.startswith(f"{TOPICS.base}/model/{slot}/")]:
                assert federation.broker[topic] == lying[topic]
