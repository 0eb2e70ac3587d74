"""What a simulated fleet reads once for all devices is what each device would have read itself."""

import pytest

from edgefl.device import inbound
from edgefl.device.shelf import Proven
from edgefl.errors import ProtocolError
from edgefl.machine import Received
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.inbox import Missing
from edgefl.protocol.messages import encode
from edgefl.protocol.topics import Topics
from edgefl.simulation.hosts.shelf import MESSAGES, MODELS, FleetShelf

TOPICS = Topics("shelf")


def envelope(part: int = 0, data: bytes = b"x" * 300) -> bytes:
    return Envelope(Kind.MODEL, 0, 1, 0, 1, part, 2, 300, 600, b"12345678", data).to_bytes()


def test_a_part_is_read_once_and_as_a_device_reads_it():
    shelf, event = FleetShelf(), Received(TOPICS.model(3, 0), envelope())
    first = shelf.message(TOPICS, "a", event)
    assert first == inbound.read(TOPICS, "a", event)
    assert shelf.message(TOPICS, "b", event) is first
    assert shelf.envelope(event.payload) == Envelope.from_bytes(event.payload)
    assert shelf.envelope(event.payload) is shelf.envelope(event.payload)


def test_the_same_bytes_on_another_topic_are_read_anew():
    shelf, payload = FleetShelf(), envelope()
    assert shelf.message(TOPICS, "a", Received(TOPICS.model(3, 0), payload)).topic.slot == 3
    assert shelf.message(TOPICS, "a", Received(TOPICS.model(4, 0), payload)).topic.slot == 4


def test_what_is_sent_to_one_device_is_read_by_that_device_alone():
    shelf, payload = FleetShelf(), encode(Missing(1, [0]))
    shelf.message(TOPICS, "a", Received(TOPICS.inbox("a"), payload))
    with pytest.raises(ProtocolError):
        shelf.message(TOPICS, "b", Received(TOPICS.inbox("a"), payload))


def test_a_damaged_part_is_refused_each_time():
    shelf, damaged = FleetShelf(), envelope()[:-1] + b"y"
    for _ in range(2):
        with pytest.raises(ProtocolError):
            shelf.envelope(damaged)


def test_only_the_newest_are_kept():
    shelf = FleetShelf()
    parts = [envelope(data=b"%300d" % number) for number in range(MESSAGES + 1)]
    found = [shelf.envelope(part) for part in parts]
    assert shelf.envelope(parts[-1]) is found[-1]
    assert shelf.envelope(parts[0]) is not found[0]
    models = [Proven(f"{number:064x}"[::-1], b"%d" % number) for number in range(MODELS + 1)]
    for model in models:
        assert shelf.keep(model) is model.params
    assert shelf.model(models[0].sha256[:16]) is None
    assert shelf.model(models[-1].sha256[:16]) == models[-1]
    assert shelf.keep(Proven(models[-1].sha256, bytes(bytearray(models[-1].params)))) is models[-1].params
