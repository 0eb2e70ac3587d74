"""Snapshot: what the coordinator's host, and an operator, may read of the coordinator at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["waiting", "open", "unmasking", "evaluating", "judging", "done"]


@dataclass(frozen=True)
class Snapshot:
    """`round` is the open round, or the one that comes next. `held`: the federation is ours (fence.py).

    `present` counts the devices that can be asked. The other counts are of the round that opened last, 0 before the
    first: updates `counted`, devices that it is still `waiting` for, updates `queued` until there is room, `bytes_up`
    of all parts that have arrived. `closes_at` is its deadline, on the host's clock; None unless it is open.
    `skipped` are the devices that it asks and does not wait for, and why; `deadlines` how many it has begun.
    `barred` are the devices in quarantine or muted, at most a thousand, and why.
    `opens_at` is when the next round may open, on the same clock; None if it waits for devices alone.
    """

    phase: Phase
    round: int
    version: int
    attempt: int
    held: bool
    present: int
    counted: int = 0
    waiting: int = 0
    queued: int = 0
    bytes_up: int = 0
    closes_at: float | None = None
    opens_at: float | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    deadlines: int = 1
    barred: Mapping[str, str] = field(default_factory=dict)
