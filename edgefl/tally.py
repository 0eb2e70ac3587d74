"""Tally: what has come in for the open round, and its record when it is over. No I/O. Part of RoundCoordinator."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .cohort import Cohort
from .history import RoundRecord, State
from .protocol.messages import Mode, UpdateHeader
from .round_intake import RoundIntake


@dataclass
class Tally:
    """`version` is what devices train from. `waiting` has those who were asked, are present, and are yet to report;
    the round closes when it is empty, or earlier at `goal` updates if there is such a number.

    `folded` has the late updates of earlier rounds, by device and round. They are in the sum; towards goal and minimum
    they count only where `any_round` does, in asynchronous rounds. `pace` is how it was announced: fields of Round.
    """

    round: int
    version: int
    opened_at: float
    intake: RoundIntake
    cohort: Cohort
    goal: int | None
    waiting: set[str]
    any_round: bool = False
    mode: Mode = "train"
    pace: dict[str, Any] = field(default_factory=dict)
    counted: dict[str, UpdateHeader] = field(default_factory=dict)
    folded: dict[tuple[str, int], UpdateHeader] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    bytes_up: int = 0
    arrived: Counter[str] = field(default_factory=Counter)  # device -> its share of bytes_up

    def see(self, device: str, present: bool) -> None:
        """A device has come or gone."""
        if present and self.cohort.asks(device) and device not in self.counted and device not in self.rejected:
            self.waiting.add(device)
        else:
            self.waiting.discard(device)

    def receive(self, device: str, size: int) -> None:
        """So many bytes of the device's update have come."""
        self.bytes_up += size
        self.arrived[device] += size

    def count(self, device: str, header: UpdateHeader) -> None:
        self.counted[device] = header
        self.waiting.discard(device)

    def reject(self, device: str) -> None:
        self.rejected.add(device)
        self.waiting.discard(device)

    def fold(self, device: str, round: int, header: UpdateHeader) -> None:
        self.folded[device, round] = header

    @property
    def reports(self) -> int:
        """Updates that count towards goal and minimum."""
        return len(self.counted) + (len(self.folded) if self.any_round else 0)

    @property
    def complete(self) -> bool:
        """No need to wait for the deadline."""
        return not self.waiting or (self.goal is not None and self.reports >= self.goal)

    def record(self, num_params: int, min_reports: int, now: float) -> RoundRecord:
        """The round's record, if it closes `now`; abandoned below `min_reports`."""
        headers = [*self.counted.values(), *self.folded.values()]
        examples = sum(h.num_examples for h in headers)
        state: State = "committed" if self.mode == "train" else "evaluated"
        if self.reports < max(1, min_reports):
            state = "abandoned"
        return RoundRecord(
            round=self.round,
            state=state,
            version=self.version + (state == "committed"),
            reported=len(headers),
            devices=sorted(self.counted),
            num_examples=examples,
            train_loss=_mean((h.loss, h.num_examples) for h in headers),
            bytes_up=self.bytes_up,
            bytes_down=sum(h.bytes_down for h in headers),
            seconds=now - self.opened_at,
            float32_bytes=4 * num_params * len(headers) if self.mode == "train" else 0,
            rejected=len(self.rejected),
            deferred=self.intake.deferred,
            by_device=msgspec.Raw(msgspec.json.encode(self._traffic())),
            folded=sorted(self.folded),
            cohort=msgspec.Raw(msgspec.json.encode(self.cohort.message)),
            **self._scores(),
        )

    def _scores(self) -> dict[str, Any]:
        """Of the model that the round began with; devices of late updates evaluated an earlier one."""
        headers = self.counted.values()
        return {
            "device_examples": sum(h.num_eval for h in headers),
            "device_loss": _mean((h.eval_loss, h.num_eval) for h in headers),
            "device_accuracy": _mean((h.eval_accuracy, h.num_eval) for h in headers),
        }

    def _traffic(self) -> dict[str, tuple[int, int]]:
        down = Counter({device: header.bytes_down for device, header in self.counted.items()})
        for (device, _), header in self.folded.items():
            down[device] += header.bytes_down
        return {device: (up, down[device]) for device, up in sorted(self.arrived.items())}


def _mean(scores: Iterable[tuple[float | None, int]]) -> float | None:
    """The mean of (value, weight), of those that have a value; None where they weigh nothing."""
    known = [(value, weight) for value, weight in scores if value is not None and weight]
    return math.fsum(v * w for v, w in known) / sum(w for _, w in known) if known else None
