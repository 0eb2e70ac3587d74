"""Labels: the names of classes, as text or numbers in a table, to 0, 1, 2, ... and back.

All devices of a federation must number their classes alike. So a list in the SPEC is the safe way; labels=* numbers
what occurs in a device's own data, in sorted order, and the agent refuses it where it is not as many as the model has.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from .cells import is_blank, plain_number
from .options import names

MOST = 1000  # different labels that occur, with labels=*


class Labels:
    """`names` in the order of their numbers; of labels=* only after `finish`."""

    def __init__(self, given: list[str] | None = None) -> None:
        self._any = given is None
        self._codes = {tidy(name): code for code, name in enumerate(given or [])}
        self.names = tuple(given or ())
        if given is not None and (len(self._codes) < len(given) or len(given) < 2 or "" in self._codes):
            raise UsageError(f"data option labels={','.join(given)}: give at least two different names, or *")

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Labels | None:
        """labels=ok,worn,fault or labels=*; None without the option. UsageError."""
        if "labels" not in options:
            return None
        if options.get("kind", "classes") != "classes":
            raise UsageError("labels= names classes: leave out kind=values")
        return cls(None if options["labels"].strip() == "*" else names(options["labels"]))

    def is_blank(self, cell: Any) -> bool:
        """Whether the cell says that there is no label; a word such as none may be the name of a class."""
        return is_blank(cell) and (self._any or tidy(cell) not in self._codes)

    def code(self, cell: Any) -> int:
        """The number of a cell's class; -1 if it names no class."""
        name = tidy(cell)
        code = self._codes.get(name, -1)
        if code < 0 and self._any and name and len(self._codes) <= MOST:
            code = self._codes[name] = len(self._codes)
        return code

    def check(self) -> None:
        """DataError if more labels have occurred than classes can be."""
        if self._any and len(self._codes) > MOST:
            text = f"the target has more than {MOST} different labels"
            raise DataError(f"{text}: choose the column of classes as target=", text)

    def finish(self, codes: array[int]) -> np.ndarray:
        """(n,) int64, the classes by their final numbers."""
        y = np.frombuffer(codes, np.int64)
        if not self._any:
            return y
        self.names = tuple(sorted(self._codes, key=in_order))
        ranks = np.empty(len(self.names), np.int64)
        for rank, name in enumerate(self.names):
            ranks[self._codes[name]] = rank
        return ranks[y]

    def wanted(self) -> str:
        """What a cell should have been, in words that may leave the device."""
        return "a label" if self._any else f"one of the {len(self.names)} labels"


def tidy(cell: Any) -> str:
    """The text of a label: without blanks around it, and a whole number always written alike: ` 1`, `1.0` are `1`."""
    text = "" if cell is None else str(cell).strip()
    if len(text) <= 24:
        number = plain_number(text)
        if math.isfinite(number) and number.is_integer() and abs(number) < 2**53:
            return str(int(number))
    return text


def in_order(name: str) -> tuple[int, float, str]:
    """The key to sort labels by: numbers first, by their value, then texts."""
    number = plain_number(name)
    return (0, number, name) if math.isfinite(number) else (1, 0.0, name)
