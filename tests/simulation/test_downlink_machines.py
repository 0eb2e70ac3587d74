"""The downlink through coordinator and session: what a device trains from is what the aggregator shows."""

from __future__ import annotations

import numpy as np
from machines import HASH, PARAMS, TOPICS, P, feed, make_coordinator, make_manifest, make_session, of, received, serve

from edgefl.coordinator.model.downlink import Downlink
from edgefl.coordinator.model.retained_model import RetainedModel
from edgefl.core.params import to_bfloat16
from edgefl.device.events import CancelTraining, StartTraining
from edgefl.machine import Connected, Note, Publish
from edgefl.protocol.round import Round

ECQ = {"downlink": "ecq", "downlink_options": {"step": 2.0, "exact": "none"}}


def coordinator_and_session(**manifest):
    manifest = make_manifest(part_bytes=2048, **manifest)
    return make_coordinator(manifest=manifest, min_reports=1), make_session()


def test_a_session_trains_from_what_the_coordinator_shows():
    coordinator, session = coordinator_and_session(**ECQ)
    retained, rng = {}, np.random.default_rng(0)
    feed(session, Connected())

    def publish(actions):
        out = []
        for p in of(actions, Publish):
            if p.retain:
                retained[p.topic] = p
            if p.topic in (TOPICS.manifest, TOPICS.round):
                out += feed(session, received(p.topic, p.payload))
        parts = [received(p.topic, p.payload) for p in retained.values() if p.payload]
        return serve(session, out, parts)

    publish(feed(coordinator, Connected()))
    coordinator.phase = "open"  # without a device no round opens by itself
    for version in range(4):
        if version:
            coordinator.params = coordinator.params + rng.normal(0, 0.01, P).astype(np.float32)
            coordinator.version = version
            publish(coordinator.announcer.advance(coordinator.params, version)[0])
            coordinator.round += 1
        out = publish([coordinator._publish_round(0.0)])
        (start,) = of(out, StartTraining)
        assert start.job.params == coordinator.announcer.downlink.shown.tobytes()
        assert start.job.params != coordinator.params.tobytes()


def test_a_restarted_aggregator_has_other_frames_and_the_fetch_starts_again():
    manifest = make_manifest(**ECQ)
    session = make_session()
    feed(session, Connected(), received(TOPICS.manifest, manifest))
    first, second = Downlink(manifest, PARAMS, 3), Downlink(manifest, PARAMS + 1, 3)
    rounds = [Round(manifest.id, "open", 4, 1 + i, 3, d.sha256, d.frames, 60.0) for i, d in enumerate((first, second))]
    feed(session, received(TOPICS.round, rounds[0]))
    out = feed(session, received(TOPICS.round, rounds[1]))
    parts = [received(p.topic, p.payload) for p in RetainedModel(TOPICS, manifest, HASH).put(second.payloads)]
    (start,) = of(serve(session, out, parts), StartTraining)
    assert start.job.params == to_bfloat16(PARAMS + 1).tobytes()
    assert not of(out, CancelTraining) and not [n for n in of(out, Note) if n.level == "warning"]
