"""Mismatch: devices whose targets are not what the federation's loss takes. No I/O. Part of Absence.

The file alone does not say whether targets are labels, so the loss may be wrong for all of them: the operator reads it
once, with the remedy, and not once for each device.
"""

from __future__ import annotations

from ..core.targets import remedy
from ..machine import Note
from ..protocol.trouble import CODES, OF_TARGETS


class Mismatch:
    """`loss` is what the federation trains with. `advice`: what the operator should do; "" if nothing is known."""

    def __init__(self, loss: str) -> None:
        self.advice = ""
        self._loss = loss
        self._told: set[str] = set()

    def heard(self, device: str, code: str) -> list[Note]:
        """A device has trouble of this code, one of OF_TARGETS. A line for the first device of each."""
        if code in self._told or code not in OF_TARGETS:
            return []
        self._told.add(code)
        self.advice = f"loss {self._loss!r} does not fit the devices' targets: {remedy(code, self._loss)}"
        text = f"{device} can't train with loss {self._loss!r}: {CODES[code]}: {remedy(code, self._loss)}"
        return [Note("error", f"{text}; it is a new plan. Other devices with this trouble have no line of their own")]
