"""Tally: what has come in for the open round, and its record when it is over. No I/O. Part of RoundCoordinator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .history import RoundRecord
from .presence import Presence
from .protocol.messages import UpdateHeader
from .round_intake import RoundIntake


@dataclass
class Tally:
    """`cohort` None: all are asked. `goal` updates close the round early; `counted` and `rejected` are by device."""

    round: int
    opened_at: float
    intake: RoundIntake
    cohort: frozenset[str] | None
    goal: int
    counted: dict[str, UpdateHeader] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    bytes_up: int = 0

    def still_to_come(self, presence: Presence) -> Iterable[str]:
        """Devices that were asked, are there, and have neither been counted nor rejected."""
        asked = presence.present() if self.cohort is None else filter(presence.is_present, self.cohort)
        return (d for d in asked if d not in self.counted and d not in self.rejected)

    def record(self, version: int, min_reports: int, now: float) -> RoundRecord:
        """The round's record, if it closes `now` on model `version`; abandoned below `min_reports`."""
        headers = self.counted.values()
        examples = sum(h.num_examples for h in headers)
        enough = bool(headers) and len(headers) >= min_reports
        return RoundRecord(
            round=self.round,
            state="committed" if enough else "abandoned",
            version=version + enough,
            reported=len(headers),
            devices=sorted(self.counted),
            num_examples=examples,
            train_loss=sum(h.loss * h.num_examples for h in headers) / examples if examples else None,
            bytes_up=self.bytes_up,
            bytes_down=sum(h.bytes_down for h in headers),
            seconds=now - self.opened_at,
        )
