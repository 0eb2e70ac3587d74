"""Fixtures and helpers for tests over real MQTT brokers; a pytest plugin, named in conftest.py.

The tests folder is on the import path: see `pythonpath` in pyproject.toml.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from brokers import Mosquitto

from edgefl.transports.embedded import EmbeddedBroker
from edgefl.transports.mqtt import LinkEvent, Message, MqttLink, Published, Up

if TYPE_CHECKING:
    from daemons import Federation

PATIENCE_S = 10.0
NUMBERS = itertools.count(1)


class Inbox:
    """What a link under test has told; `wait` takes the first event that is as wanted, and leaves the others."""

    def __init__(self) -> None:
        self._events: list[LinkEvent] = []
        self._news = threading.Condition()

    def put(self, event: LinkEvent) -> None:
        with self._news:
            self._events.append(event)
            self._news.notify()

    def wait(
        self, kind: type, wanted: Callable[[Any], bool] = lambda event: True, patience_s: float = PATIENCE_S
    ) -> Any:
        def pick() -> LinkEvent | None:
            return next((e for e in self._events if isinstance(e, kind) and wanted(e)), None)

        with self._news:
            event = self._news.wait_for(pick, patience_s)
            if event is None:
                pytest.fail(f"no such {kind.__name__} within {patience_s:.0f} s, but {self._events}")
            self._events.remove(event)
            return event

    def quiet(self, kind: type, seconds: float = 0.3) -> list[Any]:
        """The events of `kind` that are there after `seconds`."""
        time.sleep(seconds)
        with self._news:
            return [event for event in self._events if isinstance(event, kind)]


class TestLink(MqttLink):
    """An MqttLink with an inbox, a short back-off, and calls that wait for their effect."""

    __test__ = False

    def __init__(self, url: str, client_id: str, **options: Any) -> None:
        self.inbox = Inbox()
        options = {"on_event": self.inbox.put, "rng": random.Random(1), "backoff_cap_s": 0.2, **options}
        super().__init__(url, client_id, **options)

    def up(self) -> Up:
        """Start and wait for the connection."""
        self.start()
        return self.inbox.wait(Up)

    def said(self, topic: str, payload: bytes, *, retain: bool = False) -> Published:
        """Publish and wait for the broker's word."""
        token = self.publish(topic, payload, retain=retain)
        return self.inbox.wait(Published, lambda event: event.token == token)

    def subscribe(self, topics: list[str]) -> None:
        """Subscribe, and wait until the broker has it: it takes the packets of one client in order."""
        super().subscribe(topics)
        self.said("sync", b"")

    def heard(self, topic: str) -> Message:
        return self.inbox.wait(Message, lambda event: event.topic == topic)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """A maker of federations below the test's folder, on a broker's URL; they are stopped at the end of the test."""
    from daemons import Federation  # which needs onnx, as few tests do

    made: list[Federation] = []

    def make(url: str, protocol: str = "5") -> Federation:
        made.append(Federation(tmp_path, url, f"test-{os.getpid()}-{next(NUMBERS)}", protocol))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def link() -> Iterator[Callable[..., TestLink]]:
    """A maker of links, which are stopped at the end of the test."""
    made: list[TestLink] = []

    def make(url: str, client_id: str, **options: Any) -> TestLink:
        made.append(TestLink(url, client_id, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop(0.0)


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedBroker]:
    if importlib.util.find_spec("iotcore") is None:
        pytest.skip('no embedded broker: pip install "edgefl-toolkit[demo]"')
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def shared_mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto() as broker:
        yield broker


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    """A mosquitto of the test's own, to stop, kill and restart; it keeps sessions over a restart."""
    with Mosquitto(persistence=True) as broker:
        yield broker


@pytest.fixture(scope="session", params=["embedded", "mosquitto"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """A broker that takes MQTT 5 at this URL; use topics of your own, the broker is shared."""
    if request.param == "embedded":
        return request.getfixturevalue("embedded").url
    return request.getfixturevalue("shared_mosquitto").url


@pytest.fixture(params=["embedded-5", "embedded-3.1.1", "mosquitto-5", "mosquitto-3.1.1"])
def wire(request: pytest.FixtureRequest) -> tuple[str, str]:
    """(url, protocol) for both brokers and both versions of MQTT."""
    name, protocol = request.param.rsplit("-", 1)
    if name == "mosquitto":
        return request.getfixturevalue("shared_mosquitto").url, protocol
    broker = request.getfixturevalue("embedded")
    return (broker.url if protocol == "5" else broker.url_v3), protocol
