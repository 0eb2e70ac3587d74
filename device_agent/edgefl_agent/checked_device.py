"""What the checks of `edgefl-agent --check` look at: configuration, data, and one visit to the broker."""

from __future__ import annotations

import threading
import time
from functools import cached_property
from pathlib import Path

from edgefl.checks import broker, daemon
from edgefl.checks.broker import Visit
from edgefl.checks.probe import Probe
from edgefl.data import Dataset
from edgefl.device.owner.policy import Policy
from edgefl.device.trust import Open, Pinned
from edgefl.errors import EdgeFLError, ProtocolError
from edgefl.hosting.wall_clock import is_trusted
from edgefl.machine import Received, WallClock, WallTime
from edgefl.protocol.features import unknown_features
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import RETAINED_LIMIT, decode
from edgefl.protocol.round import Round
from edgefl.protocol.topics import Topics, check_device_id

from . import last_manifest
from .config import AgentConfig
from .keys import load_keys
from .source import Source

READ_S = 60.0  # for the owner's code, or a slow disk
PACKAGES = ("numpy", "paho-mqtt", "msgspec")


class Device:
    """What the checks look at. What takes time is found once, when it is first asked for."""

    def __init__(self, config: AgentConfig) -> None:
        self.config, self.state_dir = config, Path(config.state_dir)
        self.id = check_device_id(config.device_id)
        self.topics = Topics(config.federation, config.mqtt.root)
        self.packages = (*PACKAGES, "pynacl") if config.keys.dir is not None else PACKAGES
        self.running, self.locked = daemon.claimed(self.state_dir)
        self._data: Dataset | BaseException | None = None

    @property
    def part_bytes(self) -> int:
        found = self.manifest
        return found.part_bytes if isinstance(found, Manifest) else self.config.mqtt.limits.part_bytes

    @property
    def policy(self) -> Policy:
        return self.config.policy.policy(keys=self.config.keys.dir is not None)

    @cached_property
    def visit(self) -> Visit:
        """What one visit to the broker has shown."""
        return broker.go(self.config.mqtt, self.id, running="the agent" if self.running else "", ask=self._ask)

    def _ask(self, probe: Probe) -> None:
        """An empty part of an update is nothing to an aggregator; whether it may be published, the broker says."""
        topics, part = self.topics, self.topics.update(self.id, 0, 0)
        probe.subscribe(topics.manifest, topics.round, topics.inbox(self.id), topics.status(self.id))
        probe.publish(part, b"")
        wanted = {topics.manifest, topics.round}
        probe.wait(lambda: part in probe.answers and wanted <= probe.messages.keys(), broker.WAIT_S)

    @cached_property
    def manifest(self) -> Manifest | str:
        """What the federation trains, if its signer is believed; or why that is not known."""
        payload, why = self._opened(self.topics.manifest)
        if payload is None:
            return why
        try:
            return decode(Manifest, payload, RETAINED_LIMIT)
        except ProtocolError as error:
            return str(error).removesuffix(": dropped")

    @cached_property
    def round(self) -> Round | str:
        _ = self.manifest  # whose seal has the certificate
        payload, why = self._opened(self.topics.round)
        if payload is None:
            return why
        try:
            found = decode(Round, payload, RETAINED_LIMIT)
            self._trust.judge(found, time.monotonic())
            return found
        except ProtocolError as error:
            return str(error).removesuffix(": dropped")

    @cached_property
    def _trust(self) -> Open:
        keys = load_keys(self.config.keys, self.config.federation, None)
        if keys is None:
            return Open()
        clock, unix_s = WallClock(), time.time()
        clock.hear(WallTime(unix_s, is_trusted(unix_s)), time.monotonic())
        return Pinned(self.topics, self.id, self.config.federation, keys, clock)

    @property
    def model(self) -> Manifest | str:
        """The manifest of the broker, or else the last one that an agent has believed here; or why it has neither."""
        found = self.manifest
        return last_manifest.read(self.state_dir) or found if isinstance(found, str) else found

    @cached_property
    def examples(self) -> Dataset | str:
        """The examples, or that they can't be read; `data` says why."""
        if self.config.model.only:
            return "this device trains nothing"
        try:
            return self.dataset()
        except Exception:
            return "the data can't be read"

    def _opened(self, topic: str) -> tuple[bytes | None, str]:
        """What is retained on a topic, without its seal; or why there is nothing that can be read."""
        if not self.visit.is_in:
            return None, "the broker was not asked"
        message = self.visit.messages.get(topic)
        if message is None:
            return None, f"nothing is retained on {topic!r}"
        try:
            payload = self._trust.open(Received(topic, message.payload, True), time.monotonic()).payload
            lacking = unknown_features(payload)
        except ProtocolError as error:
            return None, str(error).removesuffix(": dropped")
        return (None, f"it requires {', '.join(lacking)}: update EdgeFL here") if lacking else (payload, "")

    def dataset(self) -> Dataset:
        """The examples; DataError, UsageError. The owner's code may hang, and is then left behind."""
        if self._data is None:
            thread = threading.Thread(target=self._load, daemon=True)
            thread.start()
            thread.join(READ_S)
        if self._data is None:
            raise EdgeFLError(f"{self.config.data.source} has not answered for {READ_S:.0f} s: see what it waits for")
        if isinstance(self._data, BaseException):
            raise self._data
        return self._data

    def _load(self) -> None:
        try:
            self._data = Source(self.config.data.source).read()
        except BaseException as error:
            self._data = error
