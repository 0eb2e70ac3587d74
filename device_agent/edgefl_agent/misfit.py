"""Misfit: notices that this agent is connected and yet in nobody's federation: a wrong name, root, user name or ACL.

The manifest is retained, so an agent that may read it has it within seconds. An MQTT 5 broker says which publish it
refuses. With MQTT 3.1.1 it drops the message silently, so there the agent reads its own status back once. The agent
goes on trying all the same, since the aggregator may not have started yet. No I/O and no clock.
"""

from __future__ import annotations

from edgefl.machine import Action, Note, Subscribe, Unsubscribe
from edgefl.protocol.topics import Topics

PATIENCE_S = 30.0
ASK_S = 15.0  # after connecting, how long a receipt may take to come before the status is read back
AGAIN_S = 600.0


class Misfit:
    """`read` and `written`: what has been proved since the start, and is not doubted again."""

    def __init__(self, topics: Topics, device: str) -> None:
        self.read = self.written = False
        self._topics, self._device = topics, device
        self._status, self._inbox = topics.status(device), topics.inbox(device)
        self._silent = False  # the broker drops silently what it refuses
        self._since: float | None = None
        self._asked = False
        self._say_at = [0.0, 0.0]

    def connected(self, protocol: str, now: float) -> None:
        self._since, self._silent, self._asked = now, protocol != "5", False

    def disconnected(self) -> None:
        self._since = None

    def hear(self, topic: str) -> list[Action]:
        """A message has come on this topic."""
        if topic == self._topics.manifest:
            self.read = True
        elif topic in (self._status, self._inbox):
            self.written = True
            if self._asked:
                self._asked = False
                return [Unsubscribe((self._status,))]
        return []

    def look(self, now: float) -> list[Action]:
        """What is due: a question, or a warning."""
        if self._since is None or now < self._since + ASK_S:
            return []
        out: list[Action] = []
        if self._silent and not self.written and not self._asked:
            self._asked = True
            out.append(Subscribe((self._status,)))
        if now < self._since + PATIENCE_S:
            return out
        if not self.read and now >= self._say_at[0]:
            self._say_at[0] = now + AGAIN_S
            out.append(Note("warning", self._no_manifest()))
        if self._asked and now >= self._say_at[1]:
            self._say_at[1] = now + AGAIN_S
            out.append(Note("warning", self._no_status()))
        return out

    def _no_manifest(self) -> str:
        return (
            f"connected, but there is no manifest on {self._topics.manifest!r}: check `federation`, [mqtt] root and "
            "the broker's ACL, which must let this client read there; or the aggregator has not started yet"
        )

    def _no_status(self) -> str:
        return (
            f"the broker does not give our own status back from {self._status!r}, so it may drop all that we publish: "
            f"{user_name(self._device)}; and the broker's ACL must let it read its own status"
        )


def user_name(device: str) -> str:
    """Whom the broker must take this agent for."""
    return f"its MQTT user name, or the common name of its certificate, must be its device_id, {device!r}"
