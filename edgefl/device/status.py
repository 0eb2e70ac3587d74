"""DeviceStatus: what a device shows of itself, and why it sits out. Part of DeviceSession; no I/O."""

from __future__ import annotations

from ..machine import Publish
from ..protocol.messages import Round, Status, encode
from .events import Action


class DeviceStatus:
    """`paused` is the owner's reason, `trouble` the device's own; at `ready_at` the round that it gave up is over."""

    def __init__(self, topic: str, num_examples: int) -> None:
        self.paused = ""
        self.trouble = ""
        self.ready_at: float | None = None
        self._topic = topic
        self._num_examples = num_examples
        self._given_up: tuple[str, int] | None = None
        self._boot = 0
        self._shown: Status | None = None

    def connected(self, boot: int) -> None:
        """A session of its own: what was shown before, its will may have replaced."""
        self._boot, self._shown = boot, None

    def publish(self, state: str) -> list[Action]:
        """The presence, if it has changed since it was last shown."""
        reason = (self.paused or self.trouble)[:500]
        if reason and state != "disconnected":
            state = "paused"
        status = Status(state, self._boot, self._num_examples, reason)  # type: ignore[arg-type]
        if status == self._shown:
            return []
        self._shown = status
        return [Publish(self._topic, encode(status), retain=True)]

    def again(self) -> Publish:
        """The presence as it was shown last: whoever asks may have lost it, or have had another's word for it."""
        assert self._shown is not None  # whoever is on-line has shown something
        return Publish(self._topic, encode(self._shown), retain=True)

    def refuse(self, why: str) -> None:
        """There is nothing that this device could do, until another manifest comes."""
        self.trouble, self.ready_at = why, None

    def give_up(self, round: Round, why: str, ready_at: float) -> None:
        """Sit this round out, and say so until it is over: what is paused for ever would not be asked again."""
        self.trouble = why
        self._given_up, self.ready_at = (round.manifest, round.round), ready_at

    def gave_up(self, round: Round) -> bool:
        return self._given_up == (round.manifest, round.round)

    def recover(self) -> None:
        """The trouble is over."""
        self.trouble, self.ready_at = "", None

    def start_over(self) -> None:
        """Another manifest: what was given up is no more."""
        self.recover()
        self._given_up = None
