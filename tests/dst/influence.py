"""Bounded influence as nobody in the aggregator knows it: which weight each update of a round has to count with."""

from __future__ import annotations

from statistics import median_low

import numpy as np

from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import AdmissionSettings

from .schedule import Schedule

FACTOR = 1.5
KEPT = 100  # rounds


def admission_of(schedule: Schedule) -> AdmissionSettings:
    """A third of all schedules bounds the influence of updates, with keys or without."""
    bounded = schedule.seed // 3 % 3 == 1 and not schedule.masked
    return AdmissionSettings(influence=FACTOR if bounded else "off")


class Influences:
    """The newest update of each device that is in a model."""

    def __init__(self, schedule: Schedule) -> None:
        self._bounded = admission_of(schedule).influence != "off"
        self._codec, self._num_params = schedule.manifest.update_codec, schedule.manifest.update_size
        self._last: dict[str, tuple[int, int, int, float]] = {}  # counted in; of round; n, norm

    def weights(self, round: int, updates: list[tuple[str, int]], blobs: tuple[bytes, ...]) -> list[int]:
        """By the updates that were in models before, or by these if there were none."""
        own = [self._claim(blob) for blob in blobs]
        if not self._bounded:
            return [n for n, _ in own]
        known = [(n, norm) for counted, _, n, norm in self._last.values() if counted >= round - KEPT]
        claims = known or [claim[1:] for claim in self._newest(updates, own).values()]
        examples = median_low([n for n, _ in claims])  # as the aggregator divides: a weight is rounded down
        most = FACTOR * median_low([n * norm / examples for n, norm in claims]) * examples
        typical = median_low([norm for _, norm in claims])
        return [n if n * max(norm, typical) <= most else max(1, int(most / max(norm, typical))) for n, norm in own]

    def counted(self, round: int, updates: list[tuple[str, int]], blobs: tuple[bytes, ...]) -> None:
        """These are in the model of `round`."""
        for device, claim in self._newest(updates, [self._claim(blob) for blob in blobs]).items():
            self._last[device] = round, *claim

    def _newest(
        self, updates: list[tuple[str, int]], own: list[tuple[int, float]]
    ) -> dict[str, tuple[int, int, float]]:
        ordered = sorted(zip(updates, own, strict=True), key=lambda pair: pair[0][1])
        return {device: (round, *claim) for (device, round), claim in ordered}

    def _claim(self, blob: bytes) -> tuple[int, float]:
        header = UpdateHeader.from_bytes(blob)
        delta = self._codec.decode(blob[header.size :], self._num_params)
        return header.num_examples, float(f"{np.linalg.norm(delta.astype(np.float64)):.6g}")
