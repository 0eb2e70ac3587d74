"""A daemon without its network: a link that hands over what is published, and one turn of the loop at a time."""

from __future__ import annotations

from collections.abc import Callable

from edgefl.hosting.link_host import LinkHost


class Link:
    """Stands for the MQTT link: `publish` calls `tell`, subscriptions are kept in `wanted`."""

    def __init__(self, tell: Callable[[str, bytes], None]) -> None:
        self._tell = tell
        self.wanted: list[str] = []
        self._token = 0

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        self._tell(topic, payload)
        self._token += 1
        return self._token

    def subscribe(self, topics: list[str], qos: int) -> None:
        self.wanted += topics

    def unsubscribe(self, topics: list[str]) -> None:
        pass

    def calm(self, seconds: float) -> None:
        pass


def turn(host: LinkHost) -> Callable[[object], None]:
    """One turn of a daemon's loop: an event, and its answers."""

    def do(event: object) -> None:
        host.feed(event)
        host._answer()

    return do
