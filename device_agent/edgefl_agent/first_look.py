"""FirstLook: counts the device's examples at the start, and looks again while they can't be used.

An agent whose data can't be used does not end, since then only its own log would tell: it says so in its status.
"""

from __future__ import annotations

import logging

from edgefl.device.events import Unable
from edgefl.errors import DataError
from edgefl.protocol.trouble import Trouble

from .source import Source

LOOK_AGAIN_S = 30.0
log = logging.getLogger("edgefl.agent")


class FirstLook:
    """`num_examples` are in `source`, 0 until they could be read."""

    def __init__(self, source: Source) -> None:
        self.num_examples = 0
        self._source = source
        self._look_at: float | None = 0.0  # None: they have been read
        self._said = ""

    def look(self, now: float) -> Unable | None:
        """Read the examples if that is due; what is new about them, for the machine. Raises UsageError."""
        if self._look_at is None or now < self._look_at:
            return None
        self._look_at = now + LOOK_AGAIN_S
        if not self._source.has_changed():
            return None
        try:
            self.num_examples = self._source.count()
        except DataError as error:
            text, why = str(error), Trouble.of(error)
            if text == self._said:
                return None
            self._said = text
            log.error("%s", text)
            return Unable(why.text, why.code)
        self._look_at = None
        return Unable("", num_examples=self.num_examples) if self._said else None
