"""Faults that last, and runs that last, with real processes: `make soak-slow`, `make soak-rounds`, `make soak-churn`.

slow     30 devices, a tenth of which hang, are frozen (SIGSTOP) or train a hundred times as long, for 50 rounds each;
         then they recover. Beside them two attackers with a certificate: one sends one part a round, the other raises
         `boot` each second. How long rounds take, compared with the healthy fleet's
rounds   20,000 rounds of a tiny model: what broker, aggregator and agents take in memory, log and database
churn    20 devices for an hour, of which about a tenth is always away: killed, stopped or frozen for a while

Each prints what it measured, and fails if a bound that is named here is broken.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attackers import BootRaiser, OnePartSender
from brokers import Mosquitto, eventually
from chaos import Fleet, Watcher, judge
from moody_data import set_mood
from tail import Tail

from edgefl.simulation.processes import AGGREGATOR

TRAINING_S = 0.3  # of a healthy device, as its data callable plays it
SLOWER = 100
RATIO = 1.5  # median round with a faulty tenth, against the healthy fleet's
FLAT_KB = 2048
COMES_BACK_WITHIN = 2  # rounds


class MoodyFleet(Fleet):
    """A fleet whose devices take as long to train as their mood says."""

    broker: Mosquitto

    def __init__(self, folder: Path, url: str, devices: int, **tables: Any) -> None:
        super().__init__(folder, url, devices, **tables)
        ours = str(Path(__file__).parent)
        found_in = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
        self.environment = {"MOODY_FOLDER": str(folder), "PYTHONPATH": found_in}
        for device in self.devices:
            self.set_training(device, TRAINING_S)
            path = folder / device / "agent.toml"
            plain, moody = f"npz:{path.parent / 'data.npz'}", f"python:moody_data:{device.replace('-', '_')}"
            text = path.read_text()
            assert plain in text
            path.write_text(text.replace(plain, moody))

    def set_training(self, device: str, seconds: float) -> None:
        set_mood(self.folder / device, seconds)

    def signal(self, device: str, number: signal.Signals) -> None:
        os.kill(self.pid(device), number)


# ---- slow


def break_devices(fleet: MoodyFleet, kind: str, devices: list[str]) -> None:
    for device in devices:
        if kind == "frozen":
            fleet.signal(device, signal.SIGSTOP)
        else:
            fleet.set_training(device, float("inf") if kind == "hung" else SLOWER * TRAINING_S)


def mend_devices(fleet: MoodyFleet, kind: str, devices: list[str]) -> None:
    for device in devices:
        if kind == "frozen":
            fleet.signal(device, signal.SIGCONT)
        fleet.set_training(device, TRAINING_S)


def measure(tail: Tail, rounds: int, patience_s: float) -> float:
    """The median seconds of the next `rounds` rounds."""
    first = len(tail.read())
    eventually(lambda: len(tail.read()) >= first + rounds, patience_s)
    return statistics.median(r.seconds for r in tail.records[first : first + rounds])


def back_after(tail: Tail, device: str, from_round: int, patience_s: float = 120.0) -> int:
    """Rounds from `from_round`, which was open when the device recovered, until the device counts."""

    def counted() -> int | None:
        return next((r.round for r in tail.read() if r.round >= from_round and device in r.devices), None)

    eventually(counted, patience_s)
    return (counted() or 0) - from_round


def slow(folder: Path, devices: int = 30, rounds: int = 50) -> None:
    tables = {"rounds": {"deadline_s": 300.0, "min_reports": 2, "interval_s": 0.0}, "journal": None}
    broken = [f"dev-{i:02}" for i in range(2, 2 + max(1, devices // 10))]
    with Mosquitto() as broker, MoodyFleet(folder, broker.url, devices, **tables) as fleet:
        tail = Tail(fleet.folder / "state")
        eventually(lambda: any(len(r.devices) == devices for r in tail.read()), 120.0)
        healthy_s = measure(tail, rounds, 600.0)
        print(f"healthy: median round {healthy_s:.3f} s of {rounds}", flush=True)
        for kind in ("hung", "frozen", "slow"):
            break_devices(fleet, kind, broken)
            began = len(tail.read())
            median_s = measure(tail, rounds, 600.0)
            check_ratio(kind, median_s, healthy_s)
            check_named(fleet, tail, broken, began)
            mend_devices(fleet, kind, broken)
            now = tail.read()[-1].round + 1
            waits = [back_after(tail, device, now) for device in broken]
            print(f"{kind}: after the recovery they counted again within {waits} rounds", flush=True)
            assert max(waits) <= COMES_BACK_WITHIN, waits
            eventually(lambda: len(tail.read()[-1].devices) == devices, 60.0)
        attack(fleet, broker, tail, rounds, healthy_s)
        fleet.check_alive()


def check_ratio(kind: str, median_s: float, healthy_s: float) -> None:
    ratio = median_s / healthy_s
    print(f"{kind}: median round {median_s:.3f} s, {ratio:.2f} of the healthy fleet's", flush=True)
    assert ratio <= RATIO, f"{kind}: {ratio:.2f}"


def check_named(fleet: MoodyFleet, tail: Tail, broken: list[str], began: int) -> None:
    """The record and the log name the devices that the round did not wait for."""
    missed = [set(r.missed) for r in tail.records[began:]]
    assert missed and set(broken) <= missed[-1], missed[-1]
    log = (fleet.folder / "aggregator.log").read_text()
    assert all(device in log for device in broken)
    print(f"  the record says: {dict(sorted(tail.records[-1].missed.items()))}", flush=True)


def attack(fleet: MoodyFleet, broker: Mosquitto, tail: Tail, rounds: int, healthy_s: float) -> None:
    for attacker in (OnePartSender, BootRaiser):
        with attacker(broker.port, fleet.federation, "mallory"):
            eventually(lambda: "mallory" in tail.read()[-1].missed, 60.0)
            check_ratio(attacker.__name__, measure(tail, rounds, 600.0), healthy_s)


# ---- rounds


def resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def rounds(folder: Path, count: int = 20_000, devices: int = 3) -> None:
    """Memory is sampled from a tenth of the rounds on."""
    tables = {"rounds": {"deadline_s": 60.0, "min_reports": 2, "interval_s": 0.0}}
    with Mosquitto() as broker, Fleet(folder, broker.url, devices, journal=None, **tables) as fleet:
        tail = Tail(fleet.folder / "state", keep=10)
        pids = {"mosquitto": broker.pid, AGGREGATOR: fleet.pid(AGGREGATOR)}
        pids |= {device: fleet.pid(device) for device in fleet.devices}
        seen: dict[str, list[int]] = {name: [] for name in pids}
        began, next_at = time.monotonic(), count // 10
        while (done := tail.skip()) < count:
            if done >= next_at:
                next_at += count // 20
                for name, pid in pids.items():
                    seen[name].append(resident_kb(pid))
                newest = {name: kilobytes[-1] for name, kilobytes in seen.items()}
                print(f"{done} rounds, {time.monotonic() - began:.0f} s, kB: {newest}", flush=True)
            fleet.check_alive()
            time.sleep(1.0)
        report_growth(fleet, seen, count)


def report_growth(fleet: Fleet, seen: dict[str, list[int]], count: int) -> None:
    found = [path for pattern in ("*.log", "state/*", "dev-1/agent.db*") for path in fleet.folder.glob(pattern)]
    for path in sorted(found):
        size = path.stat().st_size
        print(f"{path.relative_to(fleet.folder)}: {size / 1e6:.2f} MB, {size / count:.0f} bytes a round")
    for name, kilobytes in seen.items():
        spread = max(kilobytes) - min(kilobytes)
        print(f"{name}: {min(kilobytes)} to {max(kilobytes)} kB, last minus first {kilobytes[-1] - kilobytes[0]} kB")
        assert spread <= 2 * FLAT_KB, f"{name} grew: {kilobytes}"


# ---- churn


class Churn:
    """Takes devices away and brings them back, so that about `share` of them is away at any time."""

    def __init__(self, fleet: Fleet, share: float, seed: int) -> None:
        self._fleet, self._rng = fleet, random.Random(seed)
        self._most = max(1, round(share * len(fleet.devices)))
        self._away: dict[str, tuple[float, str]] = {}  # device -> when it comes back, and how it went
        self.done = {"killed": 0, "stopped": 0, "frozen": 0}

    def step(self, now: float) -> None:
        for device in [d for d, (until, _) in self._away.items() if now >= until]:
            self._back(device, self._away.pop(device)[1])
        if len(self._away) < self._most:
            here = [d for d in self._fleet.devices if d not in self._away]
            device, how = self._rng.choice(here), self._rng.choice(sorted(self.done))
            self._go(device, how)
            self._away[device] = (now + self._rng.expovariate(1 / 60.0), how)
            self.done[how] += 1

    def _go(self, device: str, how: str) -> None:
        if how == "killed":
            os.kill(self._fleet.pid(device), signal.SIGKILL)
        elif how == "stopped":
            self._fleet.stop(device)
        else:
            os.kill(self._fleet.pid(device), signal.SIGSTOP)

    def _back(self, device: str, how: str) -> None:
        if how == "frozen":
            os.kill(self._fleet.pid(device), signal.SIGCONT)
        else:
            self._fleet.start(device)

    def everybody_back(self) -> None:
        for device, (_, how) in self._away.items():
            self._back(device, how)
        self._away.clear()


def churn(folder: Path, minutes: float = 60.0, devices: int = 20, seed: int = 1) -> None:
    tables = {"rounds": {"deadline_s": 60.0, "min_reports": 5, "interval_s": 2.0}}
    with Mosquitto(persistence=True) as broker, Fleet(folder, broker.url, devices, **tables) as fleet:
        with Watcher(broker.url, fleet.federation) as watcher:
            tail = Tail(fleet.folder / "state")
            fleet.go_on(5, 120.0)
            coming_and_going = Churn(fleet, 0.1, seed)
            until = time.monotonic() + 60.0 * minutes
            memory = [(resident_kb(fleet.pid(AGGREGATOR)), resident_kb(broker.pid))]
            while time.monotonic() < until:
                coming_and_going.step(time.monotonic())
                time.sleep(2.0)
                memory.append((resident_kb(fleet.pid(AGGREGATOR)), resident_kb(broker.pid)))
            coming_and_going.everybody_back()
            now = tail.read()[-1].round + 1
            back = [back_after(tail, device, now, 120.0) for device in fleet.devices]
        fleet.__exit__()
        verdict = judge(fleet, watcher.rounds)
    seconds = [r.seconds for r in tail.records]
    states = {state: sum(r.state == state for r in tail.records) for state in ("committed", "abandoned")}
    print(f"{minutes:.0f} min, {coming_and_going.done}: {verdict}, {states}")
    print(f"a round: median {statistics.median(seconds):.2f} s, longest {max(seconds):.1f} s; replay exact")
    print(f"all {devices} counted within {max(back)} rounds of the end of the churn")
    tenth = max(1, len(memory) // 10)
    for name, values in zip((AGGREGATOR, "mosquitto"), zip(*memory, strict=True), strict=True):
        print(f"{name}: {values[tenth]} kB after a tenth of the time, {values[-1]} at the end, {max(values)} at most")
        assert max(values) - values[tenth] <= FLAT_KB, f"{name} grew"
    assert states["abandoned"] == 0 and max(seconds) < 2 * 60.0


@contextmanager
def _folder(keep: str | None) -> Iterator[Path]:
    if keep:
        yield Path(keep)
        return
    with tempfile.TemporaryDirectory(prefix="edgefl-soak-") as name:
        yield Path(name) / "run"


def main() -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["slow", "rounds", "churn"])
    parser.add_argument("--rounds", type=int, help="of slow (50, for each kind) and rounds (20000)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of churn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", metavar="DIR", help="keep all files of the run there")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # of the watcher
    with _folder(options.keep) as folder:
        if options.what == "slow":
            slow(folder, rounds=options.rounds or 50)
        elif options.what == "rounds":
            rounds(folder, options.rounds or 20_000)
        else:
            churn(folder, options.minutes, seed=options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
