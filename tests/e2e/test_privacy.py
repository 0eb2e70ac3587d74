"""What a device's data leaves behind: nothing on the wire, in a log, or in the aggregator once its round is over."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType

import numpy as np
import pytest
from brokers import Mosquitto, eventually
from canaries import CANARIES, assert_untold
from daemons import Federation
from machines import P, feed, make_coordinator, report, status, update_parts
from mqtt_fixtures import TestLink

import edgefl
from edgefl import codecs
from edgefl.data import Dataset
from edgefl.machine import Connected
from edgefl.protocol.topics import Topics
from edgefl.protocol.update_header import UpdateHeader
from edgefl.transports.memory import MemoryBroker
from edgefl.transports.mqtt import Message


@pytest.mark.parametrize("codec", ["raw32", "planes", "ecq"])
@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_i22_canaries_in_the_data_are_in_no_packet_and_no_log(codec, holdout, monkeypatch, caplog):
    said = []
    publish = MemoryBroker.publish

    def overheard(self, topic, payload, retain=False):
        said.append(topic.encode() + b" " + payload)
        publish(self, topic, payload, retain)

    monkeypatch.setattr(MemoryBroker, "publish", overheard)
    caplog.set_level(logging.DEBUG)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    x[::2] = CANARIES
    model = edgefl.load(edgefl.onnx.zoo.mlp([3, 8, 2], seed=1))
    history = edgefl.simulate(
        model, Dataset(x, rng.integers(0, 2, 60)), devices=4, rounds=3, codec=codec, holdout=holdout,
        note=lambda name, note: logging.getLogger(name).log(logging.INFO, note.text),
    )  # fmt: skip
    assert history.final.committed == 3
    assert len(said) > 30 and len(caplog.text) > 300
    assert_untold(b"\n".join(said))
    assert_untold(caplog.text.encode())


def test_i22_a_device_whose_data_are_unfit_quotes_none_of_them(
    mosquitto: Mosquitto, federation: Callable[..., Federation], link: Callable[..., TestLink]
) -> None:
    fleet = federation(mosquitto.url)
    table = fleet.folder / "bad.csv"
    table.write_text("a,b,c,d,label\n" + "1,2,3,4,0\n" * 8)
    ear = link(mosquitto.url, "ear")
    ear.up()
    ear.subscribe([f"{Topics(fleet.name).base}/#"])
    aggregator = fleet.aggregator(rounds={"deadline_s": 60.0, "min_reports": 2, "expect": 2})
    fleet.agent("dev-bad", f"csv:{table}?target=label&kind=classes")
    eventually(lambda: "dev-bad" in aggregator.host.machine.presence.statuses)
    table.write_text(f"a,b,c,d,label\n1,2,3,{CANARIES[0]},{CANARIES[1]}\n")  # a label that is no class
    fleet.agent("dev-b")
    eventually(lambda: aggregator.host.machine.presence.statuses["dev-bad"].reason, 10.0)
    heard = ear.inbox.quiet(Message)
    assert any(b"bad.csv, line 2, column 'label': not a class label" in message.payload for message in heard)
    assert_untold(b"\n".join(message.payload for message in heard))


# The aggregator


def reachable(root: object) -> Iterator[bytes]:
    """Every run of bytes that can be reached from `root`."""
    seen, left = {id(root)}, [root]
    while left:
        thing = left.pop()
        if isinstance(thing, bytes | bytearray | memoryview):
            yield bytes(thing)
        elif isinstance(thing, np.ndarray):
            yield thing.tobytes()
        elif not isinstance(thing, type | ModuleType):
            # A function holds what it closes over; its globals lead to everything that its module imports.
            held = thing.__closure__ or () if isinstance(thing, FunctionType) else gc.get_referents(thing)
            new = [other for other in held if id(other) not in seen]
            seen.update(map(id, new))
            left += new


@pytest.mark.parametrize("late", ["drop", "fold"])
def test_i23_no_update_of_one_device_is_left_when_its_round_is_over(late):
    rng = np.random.default_rng(0)
    delta = rng.normal(size=P).astype(np.float32)
    blob = UpdateHeader(5, 1, 0.5, 10, 100).to_bytes() + codecs.get("raw32").encode(delta)
    coordinator = make_coordinator(min_reports=2, late=late)
    feed(coordinator, status("a"), status("b"), Connected())
    feed(coordinator, *update_parts("a", blob)[:-1])
    trace = delta[:16].tobytes()
    assert any(trace in run for run in reachable(coordinator)), "the search finds what is there"
    report(coordinator, "a", blob=blob)
    report(coordinator, "b")
    assert coordinator.round == 2
    assert not any(trace in run for run in reachable(coordinator))
