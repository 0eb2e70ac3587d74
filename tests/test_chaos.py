"""kill -9 of the aggregator, an agent and mosquitto while rounds run: `make soak-kill` does it for minutes."""

from __future__ import annotations

from pathlib import Path

from brokers import Mosquitto
from chaos import Fleet, Killing, Watcher, judge, victims


def test_i05_i08_i10_i11_rounds_go_on_whoever_is_killed(tmp_path: Path) -> None:
    with Mosquitto() as broker, Fleet(tmp_path / "run", broker.url) as fleet:
        with Watcher(broker.url, fleet.federation) as watcher:
            fleet.go_on(1, 20.0)
            killing = Killing(victims(fleet, broker), seed=1)
            killing.run(2)
            fleet.go_on(3, 20.0)
            fleet.check_alive()
        fleet.__exit__()
        verdict = judge(fleet, watcher.rounds)
    assert killing.done == {"aggregator": 2, "agent": 2, "broker": 2}
    assert verdict.committed >= 4 and verdict.updates >= 2 * verdict.committed
