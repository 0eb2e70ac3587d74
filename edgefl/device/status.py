"""DeviceStatus: what a device publishes about itself, and why it sits a round out. Part of DeviceSession; no I/O."""

from __future__ import annotations

import re

from msgspec.structs import replace

from ..machine import Publish
from ..protocol.messages import Status, encode
from ..protocol.round import Round
from ..protocol.trouble import Trouble
from .events import Action

REASON = 500  # characters
WARNED_S = 600.0  # that a warning is told at least
NUMBERS = re.compile(r"\d[\d,.]*(?<=\d)")


class DeviceStatus:
    """`paused`: the owner's reason to pause. `unable`: why the host can't train. `trouble`: the session's own reason to
    sit out; it ends at `ready_at`, if that is set, and if `tries_again` the device then does what it gave up.
    `gave_up_for`: why it last gave a round up. `notice`: what the host tells beside the state. `idle`: why it never
    trains, which is a pause without an end. None if there is no such reason."""

    def __init__(self, topic: str, num_examples: int) -> None:
        self.paused: Trouble | None = None
        self.unable: Trouble | None = None
        self.trouble: Trouble | None = None
        self.notice: Trouble | None = None
        self.idle: Trouble | None = None
        self.gave_up_for: Trouble | None = None
        self.ready_at: float | None = None
        self.tries_again = False
        self._topic = topic
        self.num_examples = num_examples
        self._given_up: tuple[str, int, str] | None = None  # a restart may change the terms of a round
        self._boot = 0
        self._published: Status | None = None
        self.max_bytes = 0  # of the update
        self.fresh = True
        self._warning: Trouble | None = None
        self._warned_until = 0.0
        self._left_out = 0  # rounds in a row whose lists leave the device out
        self._left_out_of = 0  # the last of them
        self.agent = ""  # the version of the device's software
        self.hides = False  # how many examples there are, and what else they decide
        self.celsius: int | None = None  # its temperature, which alone is no reason to publish a status

    def connected(self, boot: int) -> None:
        """There is a new connection: the will of the last one may have replaced what was published."""
        self._boot, self._published = boot, None

    def publish(self, state: str) -> list[Action]:
        """The status, if it has changed since it was last published."""
        told = self.paused or self.unable or self.trouble or self.idle or Trouble("", "")
        if told.text and state != "disconnected":
            state = "paused" if self.paused or told is self.idle else "trouble"
        told = told if told.text else self._warning or self.notice or told
        if self.hides and told in (self.unable, self.notice):
            told = Trouble(told.code, NUMBERS.sub("#", told.text))  # how many rows there are, and where one is wrong
        status = Status(
            state, self._boot, 0 if self.hides else self.num_examples, told.text[:REASON], told.code, self.max_bytes,
            self.fresh, self.agent, self.celsius,
        )  # fmt: skip
        if self._published is not None and status == replace(self._published, celsius=self.celsius):
            return []
        self._published = status
        return [Publish(self._topic, encode(status), retain=True)]

    def first(self) -> Status:
        """What it publishes when it is connected for the first time."""
        self.connected(1)
        self.publish("ready")
        assert self._published is not None
        return self._published

    def answer(self, out: list[Action]) -> list[Action]:
        """The status for an aggregator that asks for it, unless `out` has it already."""
        assert self._published is not None  # a device publishes its status as soon as it is connected
        if any(isinstance(action, Publish) and action.topic == self._topic for action in out):
            return []
        return [Publish(self._topic, encode(self._published), retain=True)]

    def is_missed(self, round: Round, device: str) -> bool:
        """Whether to say again what it has published: after the second, fourth, eighth and so on of the rounds in a row
        whose lists leave it out. The aggregator may take it for gone, if its status was lost on the way, or somebody
        has sent an older one again."""
        if round.state != "open" or round.round == self._left_out_of:
            return False
        if not isinstance(round.cohort, list) or round.asks(device):
            self._left_out = 0
            return False
        self._left_out, self._left_out_of = self._left_out + 1, round.round
        return self._left_out > 1 and self._left_out.bit_count() == 1

    def warn(self, why: Trouble, now: float) -> None:
        """Tell this beside the state, which it does not change. Of several warnings the first one stands:
        a flood of forged messages must not make the device publish as many statuses."""
        self._warning = self._warning or why
        self._warned_until = now + WARNED_S

    def calm(self, now: float) -> None:
        """A sound round has come: the warning ends, if it is old."""
        if now >= self._warned_until:
            self._warning = None

    @property
    def hindered(self) -> bool:
        """Whether the device may not, or can't, train at all."""
        return bool(self.paused or self.unable)

    def refuse(self, why: Trouble) -> None:
        """The device can do nothing until there is another manifest."""
        self.trouble, self.ready_at = why, None

    def give_up(self, round: Round, why: Trouble | None, ready_at: float, *, tries_again: bool) -> None:
        """Sit this round out, and say why until it is over: rounds ask no device that is in trouble."""
        self.trouble, self.gave_up_for, self.tries_again = why, why, tries_again
        self._given_up, self.ready_at = (round.manifest, round.round, round.terms), ready_at

    def sit_out(self, why: Trouble, until: float | None) -> None:
        """The owner's limits do not let the device take part until then; None: until the time of day is known."""
        self.trouble, self.ready_at = why, until

    @property
    def sits_out(self) -> bool:
        return self.trouble is not None and self.trouble.code in ("budget", "hours", "clock")

    def gave_up(self, round: Round) -> bool:
        return self._given_up == (round.manifest, round.round, round.terms)

    def is_away_from(self, round: Round) -> bool:
        """Whether the device does not take part in this round."""
        return bool(self.hindered) or self.sits_out or self.gave_up(round)

    def recover(self) -> None:
        """The trouble is over."""
        self.trouble, self.ready_at = None, None

    def retry(self) -> None:
        """It is `ready_at`: the trouble is over, and so is the giving up if that was to be tried again."""
        self.recover()
        if self.tries_again:
            self._given_up = None

    def start_over(self) -> None:
        """There is another manifest, whose rounds the device has not given up."""
        self.recover()
        self._given_up = None
