"""FirstLook: counts the device's examples at the start, and looks again while they can't be used.

An agent whose data can't be used does not end, since then only its own log would tell: it says so in its status. The
owner's code that reads the data may hang, so it runs in a thread of its own, for which the agent does not wait long.
"""

from __future__ import annotations

import logging
import threading

from edgefl.device.events import Unable
from edgefl.errors import DataError, UsageError
from edgefl.protocol.trouble import Trouble

from .source import Source

LOOK_AGAIN_S = 30.0
FIRST_WAIT_S, WAIT_S = 10.0, 0.5  # for the data, at the start of the agent and later
NO_ANSWER = Trouble("hung", "its data source does not answer")
log = logging.getLogger("edgefl.agent")


class WrongSpec(UsageError):
    """A data SPEC that no change of the data would mend. Its text may quote the data, as a table's first line."""


class FirstLook:
    """`num_examples` are in `source`, 0 until they could be read."""

    def __init__(self, source: Source) -> None:
        self.num_examples = 0
        self._source = source
        self._look_at: float | None = 0.0  # None: they have been read
        self._count: _Count | None = None  # under way
        self._said = ""

    def look(self, now: float) -> Unable | None:
        """Read the examples if that is due; what is new about them, for the machine. Raises WrongSpec."""
        if self._count is None:
            if self._look_at is None or now < self._look_at:
                return None
            first, self._look_at = self._look_at == 0.0, now + LOOK_AGAIN_S
            if not self._source.has_changed():
                return None
            self._count = _Count(self._source)
            self._count.join(FIRST_WAIT_S if first else WAIT_S)
        if self._count.is_alive():
            return self._say(NO_ANSWER.text, NO_ANSWER)
        count, self._count = self._count, None
        try:
            self.num_examples = count.result()
        except DataError as error:
            return self._say(str(error), Trouble.of(error))
        except UsageError as error:
            raise WrongSpec(str(error)) from None
        self._look_at = None
        return Unable("", num_examples=self.num_examples) if self._said else None

    def _say(self, text: str, why: Trouble) -> Unable | None:
        """Tell a trouble, once. What the machine may not know, as it may quote the data, is in this log alone."""
        if text == self._said:
            return None
        self._said = text
        if text != why.text:
            log.error("%s", text)
        return Unable(why.text, why.code)


class _Count(threading.Thread):
    """Counts the examples. The process does not wait for this thread at its end."""

    def __init__(self, source: Source) -> None:
        super().__init__(name="count-examples", daemon=True)
        self._source = source
        self._found = 0
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._found = self._source.count()
        except BaseException as error:
            self._error = error

    def result(self) -> int:
        """The number of examples, or the exception that ended the count."""
        if self._error is not None:
            raise self._error
        return self._found
