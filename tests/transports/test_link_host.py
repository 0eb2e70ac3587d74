"""LinkHost without a network: what it hands to its link, and what it says of what the link does not take."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from edgefl.errors import TransportError
from edgefl.hosting import link_host
from edgefl.hosting.link_host import BEHIND_BYTES, WINDOW, LinkHost
from edgefl.machine import Action, Connected, Publish, Received, Stop, Tick
from edgefl.transports.mqtt import Down, Message, Published

UP = Connected(boot=1)


class Refusing:
    """A link that takes nothing."""

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> int:
        raise TransportError(f"not taken: {topic}")


class Taking:
    """A link that takes everything, and counts what is acknowledged."""

    def __init__(self) -> None:
        self.tokens: Iterator[int] = count()
        self.acknowledged: list[tuple[int, int]] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> int:
        return next(self.tokens)

    def ack(self, *handles: tuple[int, int]) -> None:
        self.acknowledged += handles


class Talkative:
    """A machine with two answers to every message."""

    def step(self, event: object, now: float) -> list[Action]:
        return [Publish("answer", b"")] * 2 if isinstance(event, Received) else []


class Plain(LinkHost[Any, Action]):
    """A host of a machine that asks for nothing of its own."""

    def __init__(self, machine: Any, link: Any) -> None:
        super().__init__(logging.getLogger("edgefl.test"))
        self.machine, self.link = machine, link

    def carry_out(self, action: Action) -> None:
        self.carry_out_shared(action)


class Echo:
    """A machine whose only event is the list of its actions."""

    def step(self, event: object, now: float) -> list[Action]:
        return event if isinstance(event, list) else []


class Leaving(Taking):
    """A link on which nothing is acknowledged; `will` is whether it was stopped so that the will is sent."""

    flow = None
    will: bool | None = None

    def start(self) -> None:
        pass

    def stop(self, timeout: float, *, will: bool) -> None:
        self.will = will


@pytest.fixture
def host() -> Plain:
    return Plain(Echo(), Refusing())


def test_an_outage_is_one_line_whatever_is_published_meanwhile(host: Plain, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        for topic in "abc":
            host._handle([Publish(topic, b"")])
            host._answer()
        host._handle(UP)
        host._handle(Down("gone", 0.0))
    assert [record.message for record in caplog.records] == ["not taken: a"] * 2


def test_on_line_every_message_that_is_not_taken_is_told(host: Plain, caplog: pytest.LogCaptureFixture) -> None:
    host._handle(UP)
    host._handle([Publish("a", b""), Publish("b", b"")])
    host._answer()
    assert [record.message for record in caplog.records] == ["not taken: a", "not taken: b"]


@pytest.mark.parametrize(("topic", "payload"), [("t", b""), ("t" * 60_000, b""), ("t", bytes(60_000))])
def test_i13_what_waits_for_the_host_is_bounded_however_short_its_messages_are(topic: str, payload: bytes) -> None:
    """Thousands of empty messages are no bytes of payload, and megabytes of memory."""
    host = Plain(Echo(), Refusing())
    while not host.is_behind():
        host.on_link_event(Message(topic, payload, False, (1, 1)))
        assert host._events.qsize() * (len(topic) + len(payload) + 300) < 2 * BEHIND_BYTES
    while host._events.qsize():
        host._handle(host._events.get())
    assert not host.is_behind()
    assert host._bytes_in == host._bytes_done


def test_what_was_taken_is_acknowledged_although_answers_wait() -> None:
    link = Taking()
    host = Plain(Talkative(), link)
    taken = [(1, number) for number in range(WINDOW)]
    for handle in taken:
        host._handle(Message("question", b"", False, handle))
        host._answer()
    assert link.acknowledged == taken
    assert len(host._sent) == len(host._backlog) == WINDOW
    for token in range(WINDOW):
        host._handle(Published(token, True, ""))
        host._answer()
    assert not host._backlog


@pytest.mark.parametrize(
    ("messages", "retain", "will"), [(WINDOW, True, False), (WINDOW + 1, True, True), (WINDOW + 1, False, False)]
)
def test_a_host_whose_last_words_have_not_left_leaves_its_will(
    monkeypatch: pytest.MonkeyPatch, messages: int, retain: bool, will: bool
) -> None:
    monkeypatch.setattr(link_host, "STOP_S", 0.1)
    monkeypatch.setattr(Echo, "wake_at", None, raising=False)
    link = Leaving()
    host = Plain(Echo(), link)
    host._handle(UP)
    host._handle([Publish("t", b"", retain=retain)] * messages)
    host.post(Stop())
    host.run()
    assert link.will is will


def test_a_host_that_messages_keep_busy_looks_around_all_the_same(host: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner's off switch and the watchdog are looked at there."""
    looks = []
    monkeypatch.setattr(link_host, "LONGEST_SLEEP_S", 0.05)
    monkeypatch.setattr(Echo, "wake_at", None, raising=False)
    monkeypatch.setattr(Refusing, "flow", None, raising=False)
    monkeypatch.setattr(host, "look_around", lambda: looks.append(time.monotonic()))
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        host.post(Tick())  # the queue is never empty
        host._turn()
    assert 5 <= len(looks) <= 21


def test_i07_stop_overtakes_what_waits(host: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a batch of events too: an aggregator may work on each of them for seconds."""
    seen: list[object] = []
    monkeypatch.setattr(Echo, "wake_at", None, raising=False)
    monkeypatch.setattr(Refusing, "flow", None, raising=False)

    def feed(event: object) -> None:
        seen.append(event)
        if event == "first":
            host.post(Stop())

    monkeypatch.setattr(host, "feed", feed)
    for event in ("first", "second", "third"):
        host.post(event)
    host._turn()
    assert seen[1:] == ["first", Stop()] and host.stopping  # after the time of day
