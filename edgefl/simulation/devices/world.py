"""World: what simulated devices are like, from a TOML file. Speed, hours, link, battery, dropout and energy.

    [[devices]]
    share = 3                  # of the fleet, in proportion to the other tables' shares
    profile = "pi-4"           # a board of profiles.toml, which says how fast it trains and what that takes
    link = "wifi"              # a link of profiles.toml
    hours = "22-6"             # when it is there; or 24 numbers, the probability of each hour

Design:
  a) A device's body depends on the seed and the device alone, so that a fleet may make its devices when it asks them.
  b) A world changes what messages and training take, never what they compute.
  c) Every figure of a profile has a source, and energy is a range (energy.py).
"""

from __future__ import annotations

import math
import os
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ...core.seeds import derived_seed
from ...device.owner.effort import TRAINING
from ...errors import UsageError, nearest, path_of
from ...settings import files
from ...settings.schema import checked
from . import hours as hours_of
from .battery import HYSTERESIS, Battery, Cell
from .body import NO_APPETITE, Body
from .energy import Appetite, Range
from .faults import HOUR_S
from .hours import Presence

PROFILES = Path(__file__).with_name("profiles.toml")
MB = 1e6
Positive = Annotated[float, Meta(gt=0, le=1e12)]
Rate = Annotated[float, Meta(ge=1e-6, le=1e12)]
Watts = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]
Figure = float | list[float]  # a number, or [low, high]


class Kind(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of device in the fleet. `spread` is the standard deviation of the logarithm of a device's speed and
    rates around what the kind has: 0.3 makes two of three devices between 0.74 and 1.35 times as fast."""

    name: str = ""
    share: Positive = 1.0
    profile: str = ""
    link: str = ""
    source: str = ""
    gflops: Rate | None = None  # billions of operations a second, in training
    examples_per_s: Rate | None = None  # instead of gflops
    spread: Annotated[float, Meta(ge=0, le=2)] = 0.0
    up_kbit_s: Rate | None = None
    down_kbit_s: Rate | None = None
    latency_s: Annotated[float, Meta(ge=0, le=3600)] | None = None
    hours: str | list[float] = ""
    shift_h: Annotated[float, Meta(ge=0, le=12)] = 0.0  # a device's clock is ahead of UTC by at most this, or behind
    dropout: Share = 0.0  # probability that a training ends in a loss of power
    dropout_s: Annotated[float, Meta(gt=0, le=1e8)] = 60.0
    active_watts: Figure = 0.0  # above idle
    joules_per_mb_up: Figure = 0.0
    joules_per_mb_down: Figure = 0.0
    battery_wh: Positive | None = None
    reserve: Annotated[float, Meta(ge=0, le=0.8)] = 0.2
    idle_watts: Watts = 0.0  # drawn from the battery all the time
    charge_watts: Watts = 0.0
    charge_hours: str | list[float] = ""

    def check(self) -> None:
        """UsageError for values that no device can have."""
        self.presence_hours, self.appetite  # noqa: B018
        hours_of.read(self.charge_hours, "charge_hours")
        if self.gflops and self.examples_per_s:
            raise UsageError("gflops and examples_per_s say the same: give one of them")

    @property
    def presence_hours(self) -> hours_of.Hours:
        return hours_of.read(self.hours, "hours")

    @property
    def appetite(self) -> Appetite:
        """What work and traffic take."""
        up, down = (Range.read(value, key) for value, key in self._traffic())
        per_byte = [Range(each.low / MB, each.high / MB) for each in (up, down)]
        return Appetite(Range.read(self.active_watts, "active_watts"), *per_byte)

    def _traffic(self) -> list[tuple[Figure, str]]:
        return [(self.joules_per_mb_up, "joules_per_mb_up"), (self.joules_per_mb_down, "joules_per_mb_down")]

    @property
    def cell(self) -> Cell | None:
        """The battery; None: the device has mains power."""
        if self.battery_wh is None:
            return None
        charge_hours = hours_of.read(self.charge_hours, "charge_hours")
        return Cell(self.battery_wh * HOUR_S, self.reserve, self.idle_watts, self.charge_watts, charge_hours)

    @property
    def is_lively(self) -> bool:
        """Whether something happens to a device of this kind, or counts, while no round asks it."""
        link = (self.up_kbit_s, self.down_kbit_s, self.latency_s, self.battery_wh)
        is_free = self.appetite == NO_APPETITE and self.presence_hours == hours_of.ALWAYS
        return not is_free or any(each is not None for each in link)

    def seconds_per_example(self, flops: float) -> float | None:
        """Of training, for a model whose forward pass takes so many operations; None: nothing is said of it."""
        if self.examples_per_s is not None:
            return 1 / self.examples_per_s
        return None if self.gflops is None else TRAINING * flops / (self.gflops * 1e9)


class World:
    """The kinds of a fleet. Shares are exact up to one device of each kind."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        if not kinds:
            raise UsageError("a world has no [[devices]]: add a table for each kind of device")
        for number, kind in enumerate(kinds, 1):
            try:
                checked(kind).check()
            except UsageError as error:
                raise UsageError(f"[[devices]] {number}: {error}") from None
        self.kinds = tuple(kinds)
        sums = list(accumulate(kind.share for kind in kinds))
        self._bounds = [each / sums[-1] for each in sums[:-1]]
        self._appetites = [kind.appetite for kind in kinds]
        self._hours = [kind.presence_hours for kind in kinds]
        self._cells = [kind.cell for kind in kinds]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> World:
        """The world of a TOML file; UsageError says what is off, and where."""
        path = path_of(path)
        return cls.of(files.read_table(path), path.name)

    @classmethod
    def of(cls, table: dict[str, Any], name: str) -> World:
        """The world that a table of TOML says, of the file that is called `name`; UsageError."""
        if unknown := [key for key in table if key != "devices"]:
            raise UsageError(f"{name}: the top level has no key {unknown[0]!r}; {nearest(unknown[0], ['devices'])}")
        tables = table.get("devices")
        if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
            raise UsageError(f"{name}: write [[devices]], in double brackets, above each kind of device")
        kinds = []
        for number, each in enumerate(tables, 1):
            where = f"{name}, [[devices]] {number}"
            kinds.append(files.build(Kind, _with_profiles(each, where), name=where))
        try:
            return cls(kinds)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None

    def told(self) -> list[dict[str, Any]]:
        """The kinds, for the record of a run."""
        found: list[dict[str, Any]] = msgspec.to_builtins(self.kinds)
        defaults = msgspec.to_builtins(Kind())
        return [{key: value for key, value in kind.items() if value != defaults[key]} for kind in found]

    def bodies(self, devices: int, flops: float, seed: int) -> Bodies:
        """The bodies of a fleet of so many devices, for a model whose forward pass takes so many operations."""
        return Bodies(self, devices, flops, seed)

    def _kind_at(self, place: float) -> int:
        return bisect_right(self._bounds, place)


class Bodies:
    """Of each device of a fleet, by its number. Made when asked, and the same whenever that is."""

    def __init__(self, world: World, devices: int, flops: float, seed: int) -> None:
        self._world, self._devices, self._seed = world, devices, seed
        self._seconds = [kind.seconds_per_example(flops) for kind in world.kinds]

    @cached_property
    def _shuffle(self) -> tuple[int, int]:
        """(a, b): device i is at the place a·i + b of a fleet sorted by kind, modulo its size."""
        rng = random.Random(derived_seed(self._seed, "world"))
        factors = (rng.randrange(1, self._devices + 1) for _ in range(1000))
        factor = next((each for each in factors if math.gcd(each, self._devices) == 1), 1)
        return factor, rng.randrange(self._devices)

    def kind_of(self, number: int) -> int:
        """The place of the kind among the world's, for the device of this number."""
        factor, first = self._shuffle
        return self._world._kind_at((factor * number + first) % self._devices / self._devices)

    def lively(self) -> Iterator[int]:
        """The numbers of devices that have to be there from the start."""
        kinds = [kind.is_lively for kind in self._world.kinds]
        return (number for number in range(self._devices) if any(kinds) and kinds[self.kind_of(number)])

    def body(self, number: int) -> Body:
        """The body of the device of this number."""
        world, place = self._world, self.kind_of(number)
        kind, seed = world.kinds[place], derived_seed(self._seed, "body", number)
        rng = random.Random(seed)
        shift_s = rng.uniform(-kind.shift_h, kind.shift_h) * HOUR_S
        speed, rate = (math.exp(rng.gauss(0.0, kind.spread)) for _ in range(2))
        level = rng.uniform(min(1.0, kind.reserve + HYSTERESIS), 1.0)
        cell, seconds = world._cells[place], self._seconds[place]
        return Body(
            seconds_per_example=None if seconds is None else seconds / speed,
            up=_bytes_per_s(kind.up_kbit_s, rate),
            down=_bytes_per_s(kind.down_kbit_s, rate),
            latency_s=kind.latency_s,
            presence=Presence(world._hours[place], shift_s, seed),
            dropout=(kind.dropout, kind.dropout_s),
            appetite=world._appetites[place],
            battery=None if cell is None else Battery(cell, level * cell.capacity_j, shift_s),
        )


def _bytes_per_s(kbit_s: float | None, rate: float) -> float | None:
    return None if kbit_s is None else kbit_s * rate * 1000 / 8


def profiles() -> dict[str, dict[str, dict[str, Any]]]:
    """The boards and links that come with EdgeFL: {"board": {name: table}, "link": {name: table}}."""
    return files.read_table(PROFILES)


def _with_profiles(table: dict[str, Any], where: str) -> dict[str, Any]:
    """The table of a kind, on top of the profiles that it names; UsageError if there is no such profile."""
    known, merged, sources = profiles(), dict[str, Any](), []
    for key, shelf in (("profile", "board"), ("link", "link")):
        name = table.get(key, "")
        if name and name not in known[shelf]:
            raise UsageError(f"{where}: no {shelf} is called {name!r}: {nearest(str(name), known[shelf])}")
        merged |= (found := known[shelf].get(name, {}))
        sources += [found["source"]] if found else []
    if "examples_per_s" in table:
        merged.pop("gflops", None)
    return merged | {"source": "; ".join(sources)} | table
