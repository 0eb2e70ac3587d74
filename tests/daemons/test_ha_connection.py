"""The connection to Home Assistant's broker: what is left there is cleared, nothing stops it, and nothing grows."""

from __future__ import annotations

from types import SimpleNamespace

from edgefl_broker import ha_messages as ha
from edgefl_broker.home_assistant import AT_ONCE, HEARD_AT_ONCE, LOOK_S, SETTLE_S, HomeAssistant

from edgefl.errors import TransportError
from edgefl.hosting.home_assistant import HomeAssistantConfig
from edgefl.protocol.fleet import DeviceRow, Summary
from edgefl.transports.events import Message, Up

TOPICS = ha.HaTopics("homeassistant", "pond")


class Link:
    """Keeps what is published, as long as it has `room`."""

    def __init__(self) -> None:
        self.room, self.retained, self.cleared = 10**6, {}, []

    def make(self, name, on_event, rng, **options):
        self.say, self.is_behind = on_event, options["is_behind"]
        return self

    def start(self) -> None: ...
    def subscribe(self, topics, qos) -> None: ...
    def ack(self, handle) -> None: ...

    def publish(self, topic, payload, *, retain) -> None:
        if not self.room:
            raise TransportError("too many messages wait")
        self.room -= 1
        if payload:
            self.retained[topic] = payload
        else:
            self.cleared.append(topic)


def connected(devices: int, fed: list | None = None) -> tuple[HomeAssistant, Link]:
    link = Link()
    settings = HomeAssistantConfig(enabled=True)
    config = SimpleNamespace(
        federation="pond", mqtt=None,
        home_assistant=SimpleNamespace(
            **{name: getattr(settings, name) for name in ("prefix", "devices", "control")},
            broker=lambda mqtt: SimpleNamespace(make_link=link.make),
        ),
    )  # fmt: skip
    machine = SimpleNamespace(
        fence=SimpleNamespace(held=True), rows=lambda: [DeviceRow(f"pi-{i}", "ready") for i in range(devices)],
        summary=lambda now: Summary("pond", "0" * 16, 9, "open", 1, 0),
    )  # fmt: skip
    made = HomeAssistant(config, machine, [].append if fed is None else fed.append)
    link.say(Up(False, None, 10, "5"))
    return made, link


def message(topic: str, payload: bytes, *, retain: bool = False) -> Message:
    return Message(topic, payload, retain, (1, 1))


def test_all_that_is_left_of_other_devices_is_cleared_however_much_that_is():
    home, link = connected(1)
    left = {TOPICS.config(TOPICS.node(f"old-{i}")) for i in range(3 * AT_ONCE)}
    for topic in left:
        link.say(message(topic, b"{}", retain=True))
    home.look(0.0)
    assert not link.cleared
    for second in range(8):
        home.look(SETTLE_S + LOOK_S + second)
    assert set(link.cleared) == left and len(link.cleared) == len(left)


def test_a_link_with_no_room_for_a_while_does_not_end_it():
    home, link = connected(3)
    link.room = 2
    home.look(0.0)
    assert len(link.retained) == 2
    link.room = 100
    home.look(LOOK_S)
    assert len(link.retained) == 9  # three of the federation, two of each device


def test_a_flood_is_read_no_faster_than_it_is_processed_and_switches_wait_for_the_disk():
    fed: list = []
    home, link = connected(3, fed)
    home.look(0.0)
    for _ in range(3 * HEARD_AT_ONCE):
        link.say(message("homeassistant/device/other/config", b"x"))
    assert link.is_behind()
    for second in range(4):
        home.look(1.0 + second)
    assert not link.is_behind() and not fed
    for _ in range(2 * AT_ONCE):
        link.say(message(TOPICS.pause("pi-1"), ha.ON))
    link.say(message(TOPICS.pause("pi-9"), ha.ON))
    home.look(5.0)
    assert len(fed) == AT_ONCE
    home.look(6.0)
    assert {order.device for order in fed} == {"pi-1"} and len(fed) == 2 * AT_ONCE, "nobody is called pi-9"
