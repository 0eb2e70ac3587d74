"""Presence on a real broker: a device that died unheard does not slow rounds, though its status says "ready"."""

from __future__ import annotations

from collections.abc import Callable

from brokers import Mosquitto, eventually
from daemons import Federation

from edgefl.history_record import RoundRecord


def test_i07_a_device_that_dies_while_the_broker_is_down_does_not_slow_every_round(
    federation: Callable[..., Federation],
) -> None:
    """A real broker, which keeps the dead device's "ready" over its own restart."""
    with Mosquitto(persistence=True) as broker:
        fleet = federation(broker.url)
        aggregator = fleet.aggregator(rounds={"deadline_s": 1.5, "min_reports": 1})
        dead = fleet.agent("dev-b")
        fleet.agent("dev-a")

        def rounds() -> list[RoundRecord]:
            return aggregator.host.history.rounds

        eventually(lambda: rounds() and rounds()[-1].reported == 2, 10.0)
        broker.kill9()
        dead.die()
        broker.start()
        gone = len(rounds())
        eventually(lambda: [r.devices for r in rounds()[gone:] if r.seconds < 1.0].count(["dev-a"]) >= 3, 15.0)
        assert aggregator.host.machine.presence.is_present("dev-b")
        fleet.close()
