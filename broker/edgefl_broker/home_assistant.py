"""HomeAssistant: shows the fleet to Home Assistant, on a connection of its own, and hears its switches.

Devices need no right to these topics, and nothing that rounds need goes over this connection: if Home Assistant's
broker is away, rounds go on. It lives on the aggregator's thread, which calls `look` once a second; only the link has a
thread.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import random
from collections.abc import Callable, Iterator

from edgefl.coordinator import events
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.errors import TransportError, UsageError
from edgefl.hosting.config import AggregatorConfig
from edgefl.transports.mqtt import Down, LinkEvent, Message, MqttLink, Up

from . import ha_messages as ha
from .ha_messages import Shown

LOOK_S = 5.0  # between two looks at the fleet
AT_ONCE = 50  # messages of ours, and switches, between two calls of `look`
HEARD_AT_ONCE = 1000  # events; each message of ours gives up to two
MOST_FOUND = 20_000  # topics that are ours by their names, and may be cleared
SETTLE_S = 30.0  # after this time all devices have announced themselves: what is retained of others is cleared
WHY = "by Home Assistant"
log = logging.getLogger("edgefl.aggregator")


def open_home_assistant(
    config: AggregatorConfig, machine: RoundCoordinator, feed: Callable[[events.Event], None]
) -> HomeAssistant | None:
    """None if it is not wanted. UsageError if its broker can't be used."""
    return HomeAssistant(config, machine, feed) if config.home_assistant.enabled else None


class HomeAssistant:
    """`feed` gives an event to the coordinator."""

    def __init__(
        self, config: AggregatorConfig, machine: RoundCoordinator, feed: Callable[[events.Event], None]
    ) -> None:
        self._settings, self._machine, self._feed = config.home_assistant, machine, feed
        self.topics = ha.HaTopics(config.home_assistant.prefix, config.federation)
        self._events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
        self._told: dict[str, bytes] = {}  # topic -> digest of what is retained there
        self._found: set[str] = set()  # discovery topics of ours that somebody has retained
        self._look_at, self._settled_at = 0.0, 0.0
        self._up = self._started = self._told_most = False
        self._turned = 0  # switches, since `look` was called
        self._known: set[str] = set()  # devices that are shown
        name = f"edgefl-ha-{hashlib.sha256(config.federation.encode()).hexdigest()[:8]}"
        self._link: MqttLink = config.home_assistant.broker(config.mqtt).make_link(
            name, self._events.put, random.Random(), will=(self.topics.online, ha.OFFLINE),
            is_behind=lambda: self._events.qsize() > 2 * HEARD_AT_ONCE,
        )  # fmt: skip

    def look(self, now: float) -> None:
        """Hear what has come, and publish what has changed. Only the aggregator that has the federation does."""
        if not self._machine.fence.held:
            return
        if not self._started:
            self._started, self._settled_at = True, now + SETTLE_S
            self._link.start()
        self._turned = 0
        for _ in range(min(self._events.qsize(), HEARD_AT_ONCE)):
            if self._turned >= AT_ONCE:  # each waits for the disk
                break
            self._on_event(self._events.get())
        if self._up and now >= self._look_at:
            self._look_at = now + LOOK_S
            self._publish_news(now)

    def close(self) -> None:
        """The broker publishes the will: offline."""
        if self._started:
            self._link.stop(0.5, will=True)

    def _on_event(self, event: LinkEvent) -> None:
        match event:
            case Up():
                self._up, self._look_at = True, 0.0
                self._told = dict.fromkeys(self._told, b"")  # all again
                topics = self.topics
                wanted = [topics.birth, topics.any_config]
                self._link.subscribe([*wanted, topics.any_pause] if self._settings.control else wanted, 1)
            case Message():
                self._link.ack(event.handle)
                self._hear(event)
            case Down():
                self._up = False
            case _:
                pass  # the link has logged it

    def _hear(self, message: Message) -> None:
        if message.topic == self.topics.birth:
            if message.payload == ha.BORN and not message.retain:
                self._told = dict.fromkeys(self._told, b"")  # all again
                self._look_at = 0.0
        elif self.topics.is_ours(message.topic):
            if message.payload and len(self._found) < MOST_FOUND:
                self._found.add(message.topic)
        elif not message.retain:
            self._switch(message)

    def _switch(self, message: Message) -> None:
        """A switch was turned: the same order as that of a command, and as durable."""
        try:
            device = self.topics.paused_by(message.topic)
        except UsageError:
            return
        if device is None or message.payload not in (ha.ON, ha.OFF) or device not in self._known:
            return
        log.info("Home Assistant: %s %s", "pause" if message.payload == ha.ON else "resume", device)
        order = events.Pause("", device, WHY) if message.payload == ha.ON else events.Resume("", device)
        self._feed(order)
        self._turned += 1
        self._look_at = 0.0

    def _publish_news(self, now: float) -> None:
        sent = 0
        shown = {message.topic: message.payload for message in self._messages(now)}
        gone = [topic for topic in self._told if topic not in shown]
        if now >= self._settled_at:
            self._found -= shown.keys()
            gone += sorted(self._found - set(gone))
        for topic, payload in [*((topic, b"") for topic in gone), *shown.items()]:
            digest = hashlib.sha256(payload).digest()
            if payload and self._told.get(topic) == digest:
                continue
            if sent >= AT_ONCE:
                self._look_at = 0.0  # the rest at the next call
                return
            try:
                self._link.publish(topic, payload, retain=True)
            except TransportError:  # not connected, or too many wait: the next look goes on
                return
            sent += 1
            if payload:
                self._told[topic] = digest
            else:
                self._told.pop(topic, None)
                self._found.discard(topic)

    def _messages(self, now: float) -> Iterator[Shown]:
        """All that is retained now: configurations before states."""
        topics, summary, rows = self.topics, self._machine.summary(now), self._machine.rows()
        if len(rows) > self._settings.devices:
            if not self._told_most:
                log.warning(
                    "Home Assistant is shown %d of %d devices: [home_assistant] devices", self._settings.devices,
                    len(rows),
                )  # fmt: skip
            self._told_most = True
            rows = rows[: self._settings.devices]
        self._known = {row.id for row in rows}
        yield Shown(topics.online, ha.ONLINE)
        yield ha.federation_config(topics, summary)
        yield ha.federation_state(topics, summary)
        newest = ha.newest_of(rows)
        for row in rows:
            yield ha.device_config(topics, row, control=self._settings.control)
            yield ha.device_state(topics, row, newest)
