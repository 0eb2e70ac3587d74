"""An MQTT broker's behaviour in memory, for the simulator: topics, filters, retained messages, wills.

Deliveries go through a callback, so that the owner of the clock decides when they arrive. This broker neither loses nor
repeats a message. Not here: faults (simulation/devices/faults.py) and real MQTT (mqtt.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def filter_pattern(topic_filter: str) -> re.Pattern[str]:
    """The pattern of the topics that a filter with `+` and `#` matches (MQTT 5, section 4.7)."""
    words = ["[^/]*" if w == "+" else re.escape(w) for w in topic_filter.split("/")]
    if words[-1] == re.escape("#"):
        return re.compile("/".join(words[:-1]) + "(/.*)?" if len(words) > 1 else ".*", re.DOTALL)
    return re.compile("/".join(words), re.DOTALL)


class MemoryBroker:
    """Calls `deliver(client, topic, payload)` for each message that a client receives."""

    def __init__(self, deliver: Callable[[str, str, bytes], None]) -> None:
        self._deliver = deliver
        self._retained: dict[str, bytes] = {}
        self._exact: dict[str, dict[str, None]] = {}
        self._filters: dict[str, tuple[re.Pattern[str], dict[str, None]]] = {}
        self._wills: dict[str, tuple[str, bytes]] = {}

    def connect(self, client: str, will: tuple[str, bytes] | None = None) -> None:
        """Open a session; the will is published, retained, if it is cut."""
        if will is not None:
            self._wills[client] = will

    def cut(self, client: str) -> None:
        """The client dies without a DISCONNECT: publish its will, end its subscriptions."""
        for subscribers in [*self._exact.values(), *(s for _, s in self._filters.values())]:
            subscribers.pop(client, None)
        if (will := self._wills.pop(client, None)) is not None:
            self.publish(*will, retain=True)

    def subscribe(self, client: str, topics: tuple[str, ...]) -> None:
        """Subscribe to exact topics or filters. Retained messages are delivered at every subscription."""
        for topic in topics:
            if "+" not in topic and "#" not in topic:
                self._exact.setdefault(topic, {})[client] = None
                if topic in self._retained:
                    self._deliver(client, topic, self._retained[topic])
                continue
            pattern, subscribers = self._filters.setdefault(topic, (filter_pattern(topic), {}))
            subscribers[client] = None
            for name, payload in list(self._retained.items()):
                if pattern.fullmatch(name):
                    self._deliver(client, name, payload)

    def resume(self, clients: Iterable[str], topic: str, turn: Callable[[str], int]) -> None:
        """Have clients, that know its retained message, subscribe again to an exact topic. From now on its messages go
        out by turns."""
        subscribers = [*self._exact.get(topic, ()), *clients]
        self._exact[topic] = dict.fromkeys(sorted(subscribers, key=turn))

    def unsubscribe(self, client: str, topics: tuple[str, ...]) -> None:
        for topic in topics:
            if topic in self._exact:
                self._exact[topic].pop(client, None)
                if not self._exact[topic]:
                    del self._exact[topic]

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Deliver once to every subscriber. A retained empty payload clears the retained message."""
        if retain and payload:
            self._retained[topic] = payload
        elif retain:
            self._retained.pop(topic, None)
        receivers = dict(self._exact.get(topic, {}))
        for pattern, subscribers in self._filters.values():
            if pattern.fullmatch(topic):
                receivers.update(subscribers)
        for client in receivers:
            self._deliver(client, topic, payload)
