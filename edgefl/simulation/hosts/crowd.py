"""Crowd: the devices of a simulated fleet, most of which do nothing at any time.

Design:
  a) A device is made when a round first asks it. Until then the coordinator knows of it what it would have published.
  b) A device that has nothing to do hears no rounds that don't ask it. All that such a round does to a device is to
     count its bytes; they are counted when a round asks the device again.
  c) Devices with a life of their own (hours, a slow link, a battery) are made at the start and hear everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from ...protocol.messages import Status
from ...protocol.round import Draw, Round


class Device(Protocol):
    """What a crowd wants of a device's host."""

    @property
    def sleeps(self) -> bool: ...
    @property
    def is_fresh(self) -> bool: ...
    def start(self, round_bytes: int = 0) -> None: ...
    def sleep(self, round_bytes: int) -> bool: ...
    def wake(self, round_bytes: int) -> None: ...


def device_names(count: int) -> list[str]:
    """dev-0, dev-1, ..., with as many digits as the largest number has."""
    width = len(str(count - 1))
    return [f"dev-{i:0{width}d}" for i in range(count)]


def number_of(name: str) -> int:
    """The number of the device of this name."""
    return int(name.rpartition("-")[2])


class Crowd:
    """`names` are in order. `make` makes the device of a number, and `describe` tells the status that it publishes
    when it first connects. `lively`: the numbers of devices with a life of their own."""

    def __init__(
        self, names: Sequence[str], make: Callable[[int], Device], describe: Callable[[int], Status],
        lively: Iterable[int] = (),
    ) -> None:  # fmt: skip
        self._names, self._make, self._describe = names, make, describe
        self._lively = sorted(lively)
        self._made: dict[str, Device] = {}
        self._awake: dict[str, Device] = {}  # of those that may sleep
        self._round_bytes = self._last_bytes = 0  # of all rounds that were announced, and of the last

    def __len__(self) -> int:
        return len(self._names)

    def start(self) -> dict[str, Status]:
        """Make and start the lively ones; returns the statuses of all others, as a broker would have retained them."""
        lively = set(self._lively)
        for number in self._lively:
            host = self._made[self._names[number]] = self._make(number)
            host.start()
        return {name: self._describe(number) for number, name in enumerate(self._names) if number not in lively}

    @property
    def made(self) -> dict[str, Device]:
        """All devices that were made so far, by name."""
        return self._made

    def fresh(self) -> int:
        """How many devices have data that are in no model yet."""
        return len(self._names) - sum(not host.is_fresh for host in self._made.values())

    def prepare(self, round: Round, size: int) -> list[str]:
        """A round of `size` bytes is about to be announced. Devices that have nothing to do won't hear it, unless it
        asks them; returns those that are woken for it."""
        for name in [name for name, host in self._awake.items() if host.sleep(self._round_bytes)]:
            del self._awake[name]
        woken = []
        for name in self._asked(round):
            host = self._made.get(name)
            if host is None:
                host = self._made[name] = self._make(number_of(name))
                host.start(self._round_bytes - self._last_bytes)  # it hears the last one now
            elif host.sleeps:
                host.wake(self._round_bytes)
                woken.append(name)
            else:
                continue
            self._awake[name] = host
        self._round_bytes += size
        self._last_bytes = size
        return woken

    def _asked(self, round: Round) -> Iterator[str]:
        if round.state != "open":
            return iter(())
        if round.cohort is None:
            return iter(self._names)
        if isinstance(round.cohort, Draw):
            return (name for name in self._names if round.asks(name))
        return iter(round.cohort)
