"""The skeleton of the model's file on the broker: retained once, beside versions, and never cleared with them."""

from __future__ import annotations

import hashlib

import numpy as np
from machines import MANIFEST, PARAMS, TOPICS, blob_of, feed, make_coordinator, of, status, update_parts

from edgefl.core import skeleton
from edgefl.machine import Connected, Publish, Sent
from edgefl.protocol.manifest import MAX_SKELETON, Manifest, SkeletonInfo
from edgefl.protocol.messages import decode
from edgefl.protocol.topics import SKELETON_SLOT

BLOB = bytes(range(256)) * 3


def parts(actions) -> list[Publish]:
    where = f"{TOPICS.base}/model/{SKELETON_SLOT}/"
    return [action for action in of(actions, Publish) if action.topic.startswith(where)]


def settled(coordinator, actions) -> list:
    """The actions, and those that follow when the broker acknowledges every clear."""
    out = list(actions)
    while tokens := [a.token for a in of(actions, Publish) if a.token is not None]:
        actions = [action for token in tokens for action in feed(coordinator, Sent(token, True))]
        out += actions
    return out


def test_it_is_named_by_the_manifest_and_stays_over_versions():
    coordinator = make_coordinator()
    coordinator.announcer.carry(BLOB)
    out = settled(coordinator, feed(coordinator, status("a"), Connected()))
    manifest = decode(Manifest, of(out, Publish, TOPICS.manifest)[0].payload, 2**16)
    assert manifest.skeleton == SkeletonInfo(hashlib.sha256(BLOB).hexdigest(), len(BLOB))
    published = [action for action in parts(out) if action.payload]
    assert blob_of(published) == BLOB and len(published) == 3 and all(action.retain for action in published)
    cleared = {action.topic for action in parts(out) if not action.payload}
    assert cleared == {TOPICS.model(SKELETON_SLOT, part) for part in range(3, MAX_SKELETON // 256)}
    for round in (1, 2, 3):
        events = update_parts(round=round, version=round - 1)
        later = settled(coordinator, feed(coordinator, *events))
        assert coordinator.version == round and not parts(later)
    again = settled(coordinator, feed(coordinator, Connected()))  # the broker may have lost its memory
    assert blob_of(parts(again)) == BLOB


def test_an_aggregator_without_one_clears_what_an_earlier_one_left():
    coordinator = make_coordinator()
    coordinator.announcer.carry(b"")
    out = settled(coordinator, feed(coordinator, status("a"), Connected()))
    assert decode(Manifest, of(out, Publish, TOPICS.manifest)[0].payload, 2**16).skeleton is None
    assert len(parts(out)) == MAX_SKELETON // 256 and not any(action.payload for action in parts(out))


def test_a_host_that_says_nothing_publishes_what_it_always_has():
    coordinator = make_coordinator(params=np.array(PARAMS))
    out = settled(coordinator, feed(coordinator, status("a"), Connected()))
    assert of(out, Publish, TOPICS.manifest)[0].payload == MANIFEST.raw and not parts(out)


def test_both_sides_bound_it_alike():
    assert skeleton.LONGEST == MAX_SKELETON
