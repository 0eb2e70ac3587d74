"""Announcer: what the aggregator keeps retained on the MQTT broker: manifest, model and round. No I/O.

Part of RoundCoordinator, which says when; a broker that has lost it all is put right by `everything`.
"""

from __future__ import annotations

import msgspec
import numpy as np

from ..errors import UsageError
from ..machine import Publish, Subscribe
from ..protocol.envelope import federation_hash
from ..protocol.messages import RETAINED_LIMIT, Manifest, encode
from ..protocol.parts import fitting_part_bytes
from ..protocol.topics import Topics
from .downlink import Downlink
from .events import Action
from .retained_model import RetainedModel
from .sweeper import Sweeper


class Announcer:
    """`manifest` is as devices know it, its parts lowered to what the broker takes."""

    def __init__(self, manifest: Manifest, params: np.ndarray, version: int) -> None:
        if len(encode(manifest)) > RETAINED_LIMIT:
            raise UsageError(f"the plan makes a manifest above {RETAINED_LIMIT} bytes: use a smaller model")
        self.topics = Topics(manifest.federation)
        self.hash = federation_hash(manifest.federation, manifest.run, manifest.plan.hash)
        self.downlink = Downlink(manifest, params, version)
        self.sweeper = Sweeper()
        self._swept = False
        self.fit(manifest, None)

    def fit(self, manifest: Manifest, max_packet_bytes: int | None) -> None:
        """Take a manifest in, its parts lowered to what the broker takes: devices count a model's parts by it."""
        part_bytes = fitting_part_bytes(manifest.part_bytes, self.downlink.longest, max_packet_bytes)
        self.manifest = msgspec.structs.replace(manifest, part_bytes=part_bytes)
        self.manifest_id = self.manifest.id
        self._retained = RetainedModel(self.topics, self.manifest, self.hash)

    def subscribe(self) -> list[Action]:
        return [Subscribe((self.topics.any_update,)), Subscribe((self.topics.any_status,), qos=0)]

    def everything(self) -> list[Action]:
        """Manifest and model; the round follows, if one is open."""
        return [self.publish_manifest(), *self._retained.publish(self.downlink.steps)]

    def publish_manifest(self) -> Publish:
        """Devices that know it take it for the question who is there."""
        return Publish(self.topics.manifest, encode(self.manifest), retain=True)

    def advance(self, params: np.ndarray, version: int) -> tuple[list[Action], list[Action]]:
        """The next version: what puts it on the broker, and what takes superfluous payloads off it, after the round
        that needs the new ones."""
        added, gone = self.downlink.advance(params, version)
        return self._retained.publish(added), self.sweeper.add(self._retained.clear(gone))

    def sweep(self) -> list[Action]:
        """Take off a broker that has just been connected to what no round needs; at the start also what an aggregator
        before this one may have left."""
        self._swept, first = True, not self._swept
        if first:
            oldest = self.downlink.frames[0].version
            return self.sweeper.add(self._retained.clear_before(oldest, self.downlink.longest))
        return self.sweeper.again()
