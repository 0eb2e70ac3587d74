"""Mismatch: devices whose targets are not what the federation's loss takes. No I/O. Part of Absence.

The file alone does not say whether targets are labels, so the loss may be wrong for all of them: the operator reads it
once, with the remedy, and not once for each device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ...core.targets import remedy
from ...machine import Note
from ...protocol.messages import Status
from ...protocol.trouble import CODES, OF_TARGETS


class Mismatch:
    """`loss` is what the federation trains with."""

    def __init__(self, loss: str) -> None:
        self._loss = loss
        self._told: set[str] = set()

    def heard(self, device: str, code: str) -> list[Note]:
        """A device has trouble of this code, one of OF_TARGETS. A line for the first device of each."""
        if code in self._told or code not in OF_TARGETS:
            return []
        self._told.add(code)
        text = f"{device} can't train with loss {self._loss!r}: {CODES[code]}: {remedy(code, self._loss)}"
        return [Note("error", f"{text}; it is a new plan. Other devices with this trouble have no line of their own")]

    def advice(self, statuses: Iterable[Status]) -> list[str]:
        """What viewers are told of the devices that have it now, with the remedy."""
        codes = Counter(status.code for status in statuses if status.code in OF_TARGETS)
        text = f"can't train with loss {self._loss!r}, trouble"
        return [f"{n} device{'s' * (n > 1)} {text} '{code}': {remedy(code, self._loss)}" for code, n in codes.items()]
