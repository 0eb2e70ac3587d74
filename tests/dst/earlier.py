"""What an earlier run of the same plan has left: on the broker, in the aggregator's session, on the devices' disks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgefl.coordinator.model.base_payload import with_base
from edgefl.coordinator.model.downlink import Downlink
from edgefl.coordinator.model.retained_model import RetainedModel
from edgefl.device.events import Outbox
from edgefl.protocol.envelope import Kind, federation_hash
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import Status, encode
from edgefl.protocol.parts import Splitter
from edgefl.protocol.round import Round
from edgefl.protocol.topics import Topics
from edgefl.protocol.update_header import UpdateHeader
from edgefl.transports.memory import filter_pattern

from .broker import Session
from .hosts import AGGREGATOR
from .keys import sealed
from .link import Delivery

if TYPE_CHECKING:
    from .world import World

RUN = "e" * 16
ROUNDS = 3


def leave_behind(world: World) -> None:
    """Retained manifest, round, models and statuses; updates in a queue; a saved update on each device."""
    schedule = world.schedule
    manifest = msgspec.structs.replace(schedule.manifest, run=RUN)
    manifest, base = with_base(manifest, schedule.params + 1)
    topics, hash = Topics(manifest.federation), federation_hash(manifest.federation, manifest.run, manifest.plan.hash)
    retained = world.broker.retained
    retained[topics.manifest] = sealed(schedule, topics.manifest, encode(manifest))
    for version in range(ROUNDS):
        model = Downlink(manifest, schedule.params + version + 1, version)
        for part in RetainedModel(topics, manifest, hash).put([*base, *model.payloads]):
            retained[part.topic] = part.payload
        deadline_s = schedule.config.deadline_s
        round = Round(manifest.id, "open", version + 1, 1, version, model.sha256, model.frames, deadline_s, run=RUN)
        retained[topics.round] = sealed(schedule, topics.round, encode(round))
    session = Session(patterns={t: filter_pattern(t) for t in (topics.any_status, topics.any_update)})
    for device in world.devices:
        retained[topics.status(device.name)] = encode(Status("ready", 1, 5))
        for round in range(1, ROUNDS + 1):
            blob = _update(manifest)
            session.deliveries += _parts(topics, manifest, hash, device.name, round, blob)
        device.disk.save(Outbox(manifest.id, ROUNDS, ROUNDS - 1, blob), {})
    if schedule.persistent:
        world.broker.sessions[AGGREGATOR] = session


def _update(manifest: Manifest) -> bytes:
    delta = np.full(manifest.update_size, 7.0, np.float32)
    return UpdateHeader(5, 1, 0.5, 10, 100).to_bytes() + manifest.update_codec.encode(delta)


def _parts(topics: Topics, manifest: Manifest, hash: int, device: str, round: int, blob: bytes) -> list[Delivery]:
    splitter = Splitter(
        blob, manifest.part_bytes, kind=Kind.UPDATE, codec=manifest.update_codec.wire_id, federation=hash,
        round=round, version=round - 1,
    )  # fmt: skip
    return [Delivery(topics.update(device, round, i), splitter.part(i)) for i in range(splitter.parts)]
