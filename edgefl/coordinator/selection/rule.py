"""The contract of a rule that selects devices, and what it knows of them."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, NamedTuple

from ...errors import UsageError
from ...history_record import RoundRecord
from ...protocol.round import UNEARNED_ROUNDS


class Seen(NamedTuple):
    """What the last update of a device said, in the record of `round`: n_k, its training loss, and the seconds from the
    opening of its round to its arrival; None if they are not known."""

    round: int
    num_examples: int
    loss: float
    seconds: float | None


class Selection(ABC):
    """`seen` has the devices whose update came in the last rounds, a hundred of them; any other is as good as new."""

    OPTIONS: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}

    def learn(self, record: RoundRecord) -> None:
        """A round is over; records come in their order."""
        losses, times = record.losses, record.times
        for device, (num_examples, loss) in losses.items():
            self.seen[device] = Seen(record.round, num_examples, loss, times.get(device))

    def forget(self, device: str) -> None:
        self.seen.pop(device, None)

    def choose(self, devices: list[str], wanted: int, round: int, rng: random.Random) -> list[str]:
        """`wanted` of the `devices`, for the round that opens."""
        oldest = round - UNEARNED_ROUNDS
        self.seen = {device: seen for device, seen in self.seen.items() if seen.round >= oldest}
        return devices if wanted >= len(devices) else self.pick(devices, wanted, round, rng)

    @abstractmethod
    def pick(self, devices: list[str], wanted: int, round: int, rng: random.Random) -> list[str]:
        """`wanted` of the `devices`, which are more than that."""


def weighted(
    devices: Iterable[str], wanted: int, weight: Callable[[str], float], rng: random.Random
) -> list[str]:  # fmt: skip
    """`wanted` of the `devices`, drawn one after the other with a probability proportional to `weight`, above 0
    (Efraimidis and Spirakis 2006)."""
    keys = {device: rng.random() ** (1 / weight(device)) for device in devices}
    return sorted(keys, key=keys.__getitem__, reverse=True)[:wanted]


def number(option: str, value: object, least: float, most: float) -> float:
    """`value` as a number from `least` to `most`; UsageError names the `option`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UsageError(f"rounds.selection: {option} is {value!r}: give a number from {least:g} to {most:g}")
    return float(value)
