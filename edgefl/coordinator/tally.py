"""Tally: what has come in for the open round, and its record when it is over. No I/O. Part of RoundCoordinator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import msgspec

from ..history import RoundRecord, State
from ..protocol.messages import UpdateHeader
from ..settings import Mode
from .cohort import Cohort
from .intake import RoundIntake


@dataclass
class Mean:
    """Of numbers by their weights, those that are None left out. Exact, so that it does not hang on who came first."""

    total: Fraction = Fraction(0)
    weight: int = 0

    def add(self, value: float | None, weight: int) -> None:
        if value is not None:
            self.total += Fraction(value) * weight
            self.weight += weight

    @property
    def value(self) -> float | None:
        """None where nothing weighs anything."""
        return float(self.total / self.weight) if self.weight else None


@dataclass
class Reported:
    """What the headers of counted updates say, in sums: a header of each of ten thousand devices is not kept."""

    examples: int = 0
    bytes_down: int = 0
    evaluated: int = 0  # examples held out
    loss: Mean = field(default_factory=Mean)
    eval_loss: Mean = field(default_factory=Mean)
    eval_accuracy: Mean = field(default_factory=Mean)

    def add(self, header: UpdateHeader) -> None:
        self.examples += header.num_examples
        self.bytes_down += header.bytes_down
        self.loss.add(header.loss, header.num_examples)

    def add_scores(self, header: UpdateHeader) -> None:
        """Of the model that the round began with."""
        self.evaluated += header.num_eval
        self.eval_loss.add(header.eval_loss, header.num_eval)
        self.eval_accuracy.add(header.eval_accuracy, header.num_eval)


@dataclass
class Tally:
    """`version` is what devices train from. `waiting` has those who were asked, are present, and are yet to report;
    the round closes when it is empty, or earlier at `goal` updates if there is such a number. Each name leads to
    itself, so that the other tables have the same string: every topic brings a new one.

    `folded` has the late updates of earlier rounds, by device and round. They are in the sum; towards goal and minimum
    they count only where `any_round` does, in asynchronous rounds. Both tell the bytes that the device says to have
    received. `spoilt` has those that were saved and are of no use. `pace` is how the round was announced: fields of
    Round.
    """

    round: int
    version: int
    opened_at: float
    intake: RoundIntake
    cohort: Cohort
    goal: int | None
    waiting: dict[str, str]
    any_round: bool = False
    mode: Mode = "train"
    pace: dict[str, Any] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    folded: dict[tuple[str, int], int] = field(default_factory=dict)
    sums: Reported = field(default_factory=Reported)
    spoilt: list[tuple[str, int]] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)
    bytes_up: int = 0
    arrived: Counter[str] = field(default_factory=Counter)  # device -> its share of bytes_up

    def see(self, device: str, present: bool) -> None:
        """A device has come or gone."""
        if present and self.cohort.asks(device) and device not in self.counted and device not in self.rejected:
            self.waiting[device] = device
        else:
            self.waiting.pop(device, None)

    def receive(self, device: str, size: int) -> None:
        """So many bytes of the device's update have come."""
        self.bytes_up += size
        self.arrived[self.waiting.get(device, device)] += size

    def count(self, device: str, header: UpdateHeader) -> None:
        self.counted[self.waiting.pop(device, device)] = header.bytes_down
        self.sums.add(header)
        self.sums.add_scores(header)  # those of late updates are an earlier model's

    def reject(self, device: str) -> None:
        self.rejected.add(device)
        self.waiting.pop(device, None)

    def fold(self, device: str, round: int, header: UpdateHeader) -> None:
        self.folded[device, round] = header.bytes_down
        self.sums.add(header)

    def forget(self, committed: bool) -> list[tuple[str, int]]:
        """Late updates that need not be saved any longer, by device and round."""
        return [*self.spoilt, *(self.folded if committed else ())]

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
        sums, reported = self.sums, len(self.counted) + len(self.folded)
        state: State = "committed" if self.mode == "train" else "evaluated"
        if self.reports < max(1, min_reports):
            state = "abandoned"
        return RoundRecord(
            round=self.round,
            state=state,
            version=self.version + (state == "committed"),
            reported=reported,
            devices=sorted(self.counted),
            num_examples=sums.examples,
            train_loss=sums.loss.value,
            bytes_up=self.bytes_up,
            bytes_down=sums.bytes_down,
            seconds=now - self.opened_at,
            float32_bytes=4 * num_params * reported if self.mode == "train" else 0,
            rejected=len(self.rejected),
            deferred=self.intake.deferred,
            device_examples=sums.evaluated,
            device_loss=sums.eval_loss.value,
            device_accuracy=sums.eval_accuracy.value,
            by_device=self._traffic(),
            folded=sorted(self.folded),
            cohort=msgspec.Raw(msgspec.json.encode(self.cohort.message)),
        )

    def _traffic(self) -> msgspec.Raw:
        """{device: [bytes up, bytes down]}, written one by one: large fleets' would be large."""
        late: Counter[str] = Counter()
        for (device, _), bytes_down in self.folded.items():
            late[device] += bytes_down
        encode, out = msgspec.json.encode, bytearray()
        for device in sorted(self.arrived):
            out += b"%b%b:%b" % (
                b"," if out else b"{", encode(device),
                encode((self.arrived[device], self.counted.get(device, 0) + late[device])),
            )  # fmt: skip
        out += b"}" if out else b"{}"
        return msgspec.Raw(out)
