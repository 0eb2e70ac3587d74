"""Source: the device's examples, read again when they have changed, so that each round trains on the newest."""

from __future__ import annotations

import logging

import numpy as np

from edgefl import data
from edgefl.data import Dataset, watch
from edgefl.data.watch import Look
from edgefl.digests import sha256
from edgefl.errors import DataError

log = logging.getLogger("edgefl.agent")


class Source:
    """One data SPEC. A file is read again when its size or time has changed, a python callable is called each time."""

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._kind, self._rest, self._options = data.parse(spec)
        self._stamp: Look = []
        self._tried: Look = []  # the stamp when it was last read, with or without success
        self._dataset: Dataset | None = None
        self._means: np.ndarray | None = None
        self.stamp = 0  # names the examples that were read last (DataStamp)
        self.notice = ""  # counts of what was left out of them, which may leave the device

    def read(self) -> Dataset:
        """All examples as the training part; raises DataError or UsageError."""
        stamp = self._tried = self._look()
        dataset = self._dataset  # another thread may forget it meanwhile
        if dataset is None or not stamp or stamp != self._stamp:
            self._dataset = dataset = None  # the old examples need not be in memory beside the new ones
            self._dataset = dataset = self._load()
            self._tell(dataset)
            self._stamp = stamp
            self.stamp = _number(repr(stamp).encode()) if stamp else _digest(dataset)
        return dataset

    def forget(self) -> None:
        """Give the memory of the examples back; they are read again when they are needed."""
        self._dataset = None

    @property
    def fills(self) -> bool:
        """Whether blanks become means."""
        return self._options.get("missing") == "mean"

    def fill_with(self, means: np.ndarray) -> None:
        """From now on, missing=mean puts these into blanks, (features,), and not the means of this device."""
        if self.fills and not (self._means is not None and np.array_equal(self._means, means)):
            self._means, self._dataset = means.copy(), None

    def unfilled(self) -> Dataset:
        """The examples with NaN for blanks, where these become means; read again, and not kept."""
        return self._load(gaps=True) if self.fills else self.read()

    def look(self) -> int:
        """The stamp of the examples as they are now, without reading them; 0 if only reading tells."""
        stamp = self._look()
        return _number(repr(stamp).encode()) if stamp else 0

    def _load(self, *, gaps: bool = False) -> Dataset:
        try:
            return data.load(self._spec, test_fraction=0, means=self._means, gaps=gaps)
        except SystemExit as error:  # of the owner's code: with 0 the agent would end as if all were done
            text = f"{self._spec} called sys.exit({error.code!r}): return the examples instead"
            raise DataError(text, "its code called sys.exit") from None

    def count(self) -> int:
        """How many examples there are."""
        return len(self.read().x_train)

    def has_changed(self) -> bool:
        """Whether reading again may have another outcome; True where that is unknown."""
        stamp = self._look()
        return not (stamp and stamp == self._tried)

    def _look(self) -> Look:
        """Time and size of the files; empty if unknown."""
        return watch.look(self._kind, self._rest, self._options)

    def _tell(self, dataset: Dataset) -> None:
        """What was left out: the log has it once, and the operator its counts."""
        tally, said = dataset.tally, self.notice
        self.notice = tally.text()
        if self.notice and not said:
            log.warning("%s%s", self.notice, f"; the first: {tally.first}" if tally.first else "")


class Unread(Source):
    """Of a device that trains nothing."""

    def __init__(self) -> None:
        super().__init__("none:")

    def has_changed(self) -> bool:
        return False

    def look(self) -> int:
        return 0


def _digest(dataset: Dataset) -> int:
    return _number(dataset.x_train.tobytes(), dataset.y_train.tobytes())


def _number(*blobs: bytes) -> int:
    """The head of their SHA-256, as SQLite can store it; never 0."""
    return int.from_bytes(sha256(*blobs).digest()[:7], "little") + 1
