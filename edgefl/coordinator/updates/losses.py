"""Losses: what the devices of the open round have told of their training, for the rounds' selection. Part of Tally."""

from __future__ import annotations

import msgspec

from ...history_record import NOTHING
from .admission import Judged


class Losses:
    """By device: the round of its newest update, the examples that it claimed, and its loss. `wanted`: a rule reads
    them; else nothing is kept."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._told: dict[str, tuple[int, int, float]] = {}

    def add(self, device: str, round: int, judged: Judged) -> None:
        trains = judged.update is not None
        if self._wanted and trains and round >= self._told.get(device, (0, 0, 0.0))[0]:
            self._told[device] = round, judged.examples, judged.header.loss

    def to_json(self) -> msgspec.Raw:
        """{device: [n, loss]}, as a record has it."""
        told = {device: (n, float(f"{loss:.6g}")) for device, (_, n, loss) in self._told.items()}
        return msgspec.Raw(msgspec.json.encode(told, order="sorted")) if told else NOTHING
