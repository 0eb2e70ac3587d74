"""Thousands of real device sessions on one MQTT connection: nothing is trained, each reports a ready-made update."""

from __future__ import annotations

import random
import threading
import time
from collections import deque

from replay import RawMqtt

from edgefl.device.events import StartTraining, Trained
from edgefl.device.session import DeviceSession
from edgefl.machine import Connected, Publish, Received, Sent, Subscribe, Tick, Unsubscribe
from edgefl.protocol.topics import Topics

TICK_S = 0.05


class Swarm:
    """`devices` sessions of one federation, all of which report `blob`. A context manager.

    What they do at one event, or in one tick, is sent in one go: as near to "at once" as a machine gets.
    """

    def __init__(self, port: int, federation: str, devices: int, blob: bytes) -> None:
        self.topics = Topics(federation)
        self.sessions = {
            f"d{i:05}": DeviceSession(f"d{i:05}", federation, num_examples=5, rng=random.Random(i))
            for i in range(devices)
        }
        self.shown = 0  # statuses that the broker has acknowledged
        self._blob = blob
        self._mqtt = RawMqtt(port, "swarm")
        self._unsent: list[tuple[str, Publish]] = []
        self._sent: deque[tuple[str, int | None]] = deque()  # brokers acknowledge in order (MQTT 5, section 4.6)
        self._retained: dict[str, bytes] = {}  # parts of models
        self._wanted: dict[str, dict[str, None]] = {}  # topic -> the devices that wait for it
        self._again: deque[tuple[str, str]] = deque()  # (device, topic): what is retained already
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Swarm:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping = True
        self._thread.join(10.0)
        self._mqtt.close()

    def _run(self) -> None:
        everything = f"{self.topics.base}/model/#"
        for topic in (self.topics.inbox("+"), everything, self.topics.manifest, self.topics.round):
            self._mqtt.subscribe(topic)
        for device in self.sessions:
            self._feed(device, Connected(1))
        tick_at = 0.0
        while not self._stopping:
            if time.monotonic() >= tick_at:
                self._tick()
                tick_at = time.monotonic() + TICK_S
            self._flush()
            for topic, payload in self._mqtt.messages(TICK_S):
                self._deliver(topic, payload)
            while self._again:
                device, topic = self._again.popleft()
                self._feed(device, Received(topic, self._retained[topic]))
            self._acknowledged()

    def _tick(self) -> None:
        now = time.monotonic()
        for device, session in self.sessions.items():
            if session.wake_at is not None and now >= session.wake_at:
                self._feed(device, Tick())

    def _flush(self) -> None:
        for device, message in self._unsent:
            self._mqtt.publish(message.topic, message.payload, message.retain)
            self._sent.append((device, message.token))
        self._unsent.clear()

    def _acknowledged(self) -> None:
        while self._mqtt.acknowledged:
            self._mqtt.acknowledged -= 1
            device, token = self._sent.popleft()
            if token is None:
                self.shown += 1
            else:
                self._feed(device, Sent(token, True))

    def _deliver(self, topic: str, payload: bytes) -> None:
        device = self.topics.device_of(topic)
        if device is not None:
            receivers = [device]
        elif topic in (self.topics.manifest, self.topics.round):
            receivers = list(self.sessions)
        else:
            self._retained[topic] = payload
            receivers = list(self._wanted.get(topic, ()))
        for receiver in receivers:
            self._feed(receiver, Received(topic, payload))

    def _feed(self, device: str, event: object) -> None:
        for action in self.sessions[device].step(event, time.monotonic()):
            match action:
                case Publish():
                    self._unsent.append((device, action))
                case Subscribe():
                    self._subscribe(device, action.topics)
                case Unsubscribe():
                    for topic in action.topics:
                        self._wanted.get(topic, {}).pop(device, None)
                case StartTraining():
                    self._feed(device, Trained(action.job, self._blob))

    def _subscribe(self, device: str, topics: tuple[str, ...]) -> None:
        """Parts of models, as the broker would send them; all else is subscribed to once, for all."""
        for topic in topics:
            if self.topics.model_part(topic) is None:
                continue
            self._wanted.setdefault(topic, {})[device] = None
            if topic in self._retained:
                self._again.append((device, topic))
