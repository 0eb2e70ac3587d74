"""A federation over IPv6, in both versions of MQTT, with a broker that is killed and comes back."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from brokers import Mosquitto, eventually, free_port
from daemons import Federation


@pytest.fixture
def over_ipv6() -> Iterator[tuple[Mosquitto, str]]:
    """mosquitto with a second listener on ::1, and its URL."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 on its loopback")
    port = free_port()
    with Mosquitto(f"allow_anonymous true\nlistener {port} ::1\n") as broker:
        yield broker, f"mqtt://[::1]:{port}"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_federation_over_ipv6(
    over_ipv6: tuple[Mosquitto, str], federation: Callable[..., Federation], protocol: str
) -> None:
    broker, url = over_ipv6
    fleet = federation(url, protocol)
    rounds = {"rounds": 100_000, "deadline_s": 10.0, "min_reports": 2, "expect": 2, "interval_s": 0}
    aggregator = fleet.aggregator(rounds=rounds)
    for device in ("dev-a", "dev-b"):
        fleet.agent(device)
    for kill in (True, True, False):
        before = aggregator.host.machine.version
        eventually(lambda before=before: aggregator.host.machine.version >= before + 3, 20.0)  # type: ignore[misc]
        if kill:
            broker.kill9()
            broker.start()
    assert aggregator.host.protocol == protocol
