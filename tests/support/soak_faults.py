"""Real processes, killed for minutes: `make soak-kill`, `make soak-link`. Prints what it did, or fails with the seed.

kill   aggregator, agents and mosquitto, each so many times; half the run with a broker that keeps what it had
link   ten agents on a link that loses 20 %, delays up to 2 s and cuts every 30 s, over 30 rounds; aggregator and
       broker are killed five times each
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from brokers import Mosquitto, eventually
from chaos import Fleet, Killing, Verdict, Watcher, judge, victims
from proxy import Bad, Proxy

FIELD = Bad(delay_s=(0.0, 2.0), loss=0.2, cut_s=30.0, swallow=0.05, buffer=4096)


def kill(folder: Path, times: int, seed: int, *, persistence: bool) -> Verdict:
    """`times` kills of each, then ten more rounds, and the verdict."""
    with Mosquitto(persistence=persistence) as broker, Fleet(folder, broker.url) as fleet:
        with Watcher(broker.url, fleet.federation) as watcher:
            fleet.go_on(1, 30.0)
            killing = Killing(victims(fleet, broker), seed)
            killing.run(times)
            recovery_s = fleet.go_on(1, 60.0)
            fleet.go_on(10, 60.0)
            fleet.check_alive()
        fleet.__exit__()
        verdict = judge(fleet, watcher.rounds)
    print(f"{dict(killing.done)}, broker persistence {persistence}: {verdict}, recovery {recovery_s:.1f} s")
    return verdict


def link(folder: Path, rounds: int, times: int, seed: int, bad: Bad = FIELD, devices: int = 10) -> Verdict:
    """`rounds` committed rounds over a bad link while aggregator and broker are killed `times` times each."""
    tables = {"rounds": {"deadline_s": 60.0, "min_reports": devices // 2, "goal": devices - 2}}
    with Mosquitto() as broker, Proxy(broker.port, bad, seed) as proxy:
        with Fleet(folder, broker.url, devices, proxy.url, **tables) as fleet:
            with Watcher(broker.url, fleet.federation) as watcher:
                for kills in range(times):
                    wanted = 1 + kills * rounds // times
                    eventually(lambda wanted=wanted: fleet.committed() >= wanted, 600.0)  # type: ignore[misc]
                    everybody = victims(fleet, broker)
                    Killing({name: everybody[name] for name in ("aggregator", "broker")}, seed + kills).run(1)
                eventually(lambda: fleet.committed() >= rounds, 600.0)
                fleet.check_alive()
            fleet.__exit__()
            verdict = judge(fleet, watcher.rounds)
        print(f"{times} kills each of aggregator and broker: {verdict}; the link: {dict(proxy.seen)}")
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["kill", "link"])
    parser.add_argument("--times", type=int, help="kills of each (kill: 50, link: 5)")
    parser.add_argument("--rounds", type=int, default=30, help="of link")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # of the watcher: the broker dies as often as it is meant to
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="edgefl-soak-") as name:
        began, folder = time.monotonic(), Path(name)
        if options.what == "kill":
            half = (options.times or 50) // 2
            kill(folder / "amnesia", (options.times or 50) - half, options.seed, persistence=False)
            kill(folder / "persistence", half, options.seed + 1, persistence=True)
        else:
            link(folder / "link", options.rounds, options.times or 5, options.seed)
        print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
