"""kill -9 of aggregator, agents and mosquitto, bad links, while rounds run; `make soak-kill soak-link` for longer."""

from __future__ import annotations

from pathlib import Path

from brokers import Mosquitto
from chaos import Fleet, Killing, Watcher, judge, victims
from proxy import Bad
from soak_faults import link


def test_i05_i08_i10_i11_rounds_go_on_after_any_kill(tmp_path: Path) -> None:
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


def test_i01_i05_i07_rounds_commit_over_a_link_that_loses_delays_and_cuts(tmp_path: Path) -> None:
    bad = Bad(delay_s=(0.0, 0.1), loss=0.2, cut_s=3.0, swallow=0.05, buffer=4096)
    verdict = link(tmp_path / "run", rounds=3, times=1, seed=1, bad=bad, devices=4)
    assert verdict.committed >= 3 and verdict.updates >= 2 * verdict.committed
