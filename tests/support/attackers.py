"""Devices with a certificate and bad intentions, over raw MQTT: signs of life in every round, and no update."""

from __future__ import annotations

import threading
import time

from replay import RawMqtt

from edgefl.protocol.envelope import Kind, federation_hash
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import RETAINED_LIMIT, Status, decode, encode
from edgefl.protocol.parts import Splitter
from edgefl.protocol.round import Round
from edgefl.protocol.topics import Topics

PART_BYTES = 256  # of an update of two parts


class Attacker:
    """A device that the federation believes to be there. A context manager; one thread has the connection."""

    def __init__(self, port: int, federation: str, device: str) -> None:
        self.device, self.topics = device, Topics(federation)
        self.boot = 1
        self._mqtt = RawMqtt(port, device)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Attacker:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping = True
        self._thread.join(10.0)
        self._mqtt.publish(self.topics.status(self.device), b"", retain=True)
        self._mqtt.close()

    def show(self) -> None:
        """Publish that the device is ready."""
        self._mqtt.publish(self.topics.status(self.device), encode(Status("ready", self.boot, 10)), retain=True)

    def _run(self) -> None:
        self._mqtt.subscribe(self.topics.manifest)
        self._mqtt.subscribe(self.topics.round)
        self.show()
        while not self._stopping:
            for topic, payload in self._mqtt.messages(0.1):
                self.hear(topic, payload)
            self.turn(time.monotonic())

    def hear(self, topic: str, payload: bytes) -> None:
        """A manifest or a round has arrived."""

    def turn(self, now: float) -> None:
        """Called about ten times a second."""


class BootRaiser(Attacker):
    """Publishes a status with a higher `boot` each second."""

    _next_at = 0.0

    def turn(self, now: float) -> None:
        if now >= self._next_at:
            self._next_at = now + 1.0
            self.boot += 1
            self.show()


class OnePartSender(Attacker):
    """Sends the valid first part of an update in each round, and no other."""

    _manifest: Manifest | None = None

    def hear(self, topic: str, payload: bytes) -> None:
        if topic == self.topics.manifest:
            self._manifest = decode(Manifest, payload, RETAINED_LIMIT)
        elif topic == self.topics.round and self._manifest is not None:
            self._send(self._manifest, decode(Round, payload, RETAINED_LIMIT))

    def _send(self, manifest: Manifest, round: Round) -> None:
        splitter = Splitter(
            bytes(2 * PART_BYTES), PART_BYTES, kind=Kind.UPDATE, codec=manifest.update_codec.wire_id,
            federation=federation_hash(manifest.federation, manifest.run, manifest.plan.hash), round=round.round,
            version=round.version,
        )  # fmt: skip
        self._mqtt.publish(self.topics.update(self.device, round.round, 0), splitter.part(0))
