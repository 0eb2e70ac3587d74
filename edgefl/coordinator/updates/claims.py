"""Claims: the examples and norms of the updates in the open round's sum, and of those that were refused for them, where
influence is bounded. Part of Tally."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Counted(NamedTuple):
    """The newest update of a device, of `round`: n, ‖Δ‖, and the weight that it counts with; 0: it was refused."""

    round: int
    num_examples: int
    norm: float
    weight: int


class Claims:
    """By device."""

    def __init__(self) -> None:
        self._counted: dict[str, Counted] = {}

    def add(self, device: str, counted: Counted) -> None:
        known = self._counted.get(device)
        if known is None or counted.round >= known.round:
            self._counted[device] = counted

    @property
    def lowered(self) -> dict[str, int]:
        """The weights that were lowered, as a record has them."""
        return {device: c.weight for device, c in sorted(self._counted.items()) if 0 < c.weight < c.num_examples}

    def to_json(self) -> msgspec.Raw:
        """{device: [n, ‖Δ‖]}, as a record has it."""
        told = {device: (c.num_examples, c.norm) for device, c in self._counted.items()}
        return msgspec.Raw(msgspec.json.encode(told, order="sorted"))
