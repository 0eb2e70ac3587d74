"""A day of a virtual fleet in which devices come and go, are slow, hang, and have slow links: `python soak_day.py`.

It checks that every round ends, that the rounds keep the pace of the healthy devices, that each of these is counted
again and again, and that nothing grows. Figures are printed for every sixth hour.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import edgefl
from edgefl.simulation import stage
from edgefl.simulation.devices.faults import HOUR_S
from edgefl.simulation.hosts import device_host, fleet

FAULTS = "away:0.1:12,dropout:0.0015:3600,slow:0.05:100,hung:0.05:24,link:0.1:16"
SECONDS_PER_EXAMPLE = 0.5  # of training: some ten seconds a round
INTERVAL_S, DEADLINE_S, DEADLINES = 60.0, 300.0, 8
UNCOUNTED = 3  # rounds that may pass a device that has been present for an hour
GROWTH = 1.05  # of the objects in memory, from the second hour to the last


class DayIsOver(Exception):
    """Ends the simulation."""


@dataclass
class Day:
    """What has been seen. Times are virtual seconds."""

    hours: float
    records: list[tuple[float, float, str, frozenset[str]]] = field(
        default_factory=list
    )  # end, seconds, state, counted
    present: dict[str, list[list[float]]] = field(default_factory=dict)  # each device's times of power on and off
    healthy: set[str] = field(default_factory=set)
    objects: list[int] = field(default_factory=list)  # at each full hour
    resident_mb: list[float] = field(default_factory=list)
    late: int = 0  # most late updates that the aggregator kept
    waiting: int = 0  # most callbacks that waited on the clock

    def measure(self) -> None:
        gc.collect()
        self.objects.append(len(gc.get_objects()))
        self.resident_mb.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


@contextmanager
def watched(day: Day) -> Iterator[None]:
    """Within it, simulated hosts tell `day` what they do."""

    class Device(device_host.DeviceHost):
        def power_on(self) -> None:
            boot = self.boot
            super().power_on()
            if self.boot > boot:
                day.present.setdefault(self.name, []).append([self.clock.now, float("inf")])
            handicap = self._handicap
            if handicap.factor == 1.0 and not handicap.hung_s and handicap.bytes_per_s is None:
                day.healthy.add(self.name)

        def lose_power(self, away_s: float) -> None:
            if self.powered:
                day.present[self.name][-1][1] = self.clock.now
            super().lose_power(away_s)

    class Aggregator(fleet.AggregatorHost):
        def carry_out(self, action) -> None:
            super().carry_out(action)
            day.late = max(day.late, len(self._late))
            day.waiting = max(day.waiting, len(self.clock))
            if not self.rounds:
                return
            record = self.rounds.pop()  # a history grows by a record a round; all else must not
            counted = frozenset([*record.devices, *(device for device, _ in record.folded)])
            day.records.append((self.clock.now, record.seconds, record.state, counted))
            while self.clock.now >= len(day.objects) * HOUR_S:
                day.measure()
                if len(day.objects) % 6 == 1:
                    report(day)
            if self.clock.now >= day.hours * HOUR_S:
                raise DayIsOver

    saved = stage.DeviceHost, stage.AggregatorHost, device_host.SECONDS_PER_EXAMPLE
    stage.DeviceHost, stage.AggregatorHost = Device, Aggregator  # type: ignore[misc]
    device_host.SECONDS_PER_EXAMPLE = SECONDS_PER_EXAMPLE
    try:
        yield
    finally:
        stage.DeviceHost, stage.AggregatorHost, device_host.SECONDS_PER_EXAMPLE = saved  # type: ignore[misc]


def report(day: Day) -> None:
    lasted = [seconds for _, seconds, _, _ in day.records]
    at, states = day.records[-1][0], [state for _, _, state, _ in day.records]
    here = sum(spans[-1][1] > at for spans in day.present.values())
    print(
        f"{at / HOUR_S:5.1f} h: {len(lasted)} rounds, {states.count('abandoned')} abandoned; median "
        f"{statistics.median(lasted):.1f} s, longest {max(lasted):.0f} s; {here} of {len(day.present)} devices there; "
        f"{day.objects[-1]} objects, {day.resident_mb[-1]:.0f} MB; "
        f"at most {day.late} late updates, {day.waiting} callbacks",
        flush=True,
    )


def check(day: Day) -> None:
    lasted = [seconds for _, seconds, _, _ in day.records]
    assert max(lasted) <= DEADLINES * DEADLINE_S, f"a round took {max(lasted):.0f} s"
    assert statistics.median(lasted) <= INTERVAL_S, f"the median round took {statistics.median(lasted):.0f} s"
    for device in sorted(day.healthy):
        missed = max((_missed(day, device, since, until) for since, until in day.present.get(device, ())), default=0)
        assert missed <= UNCOUNTED, f"{device} was there, and {missed} rounds in a row did not count it"
    assert day.objects[-1] <= day.objects[2] * GROWTH, f"objects after each hour: {day.objects}"


def _missed(day: Day, device: str, since: float, until: float) -> int:
    """Most rounds in a row that were over while the device was present, for an hour already, and did not count it."""
    most = row = 0
    for at, _, _, counted in day.records:
        if since + HOUR_S < at < until:
            row = 0 if device in counted else row + 1
            most = max(most, row)
    return most


def run(devices: int, hours: float, seed: int, faults: str = FAULTS, **options: object) -> Day:
    day = Day(hours)
    settings = {"interval_s": INTERVAL_S, "deadline_s": DEADLINE_S, "late": "fold", "codec": "ecq", **options}
    with watched(day):
        try:
            edgefl.simulate(
                "mlp:64-8-10", "digits", devices=devices, rounds=int(hours * HOUR_S), seed=seed, faults=faults,
                workers=1, **settings,
            )  # fmt: skip
        except DayIsOver:
            report(day)
    return day


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--devices", type=int, default=60)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    day = run(options.devices, options.hours, options.seed)
    check(day)
    print(f"{options.hours:g} hours in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
