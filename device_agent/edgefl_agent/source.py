"""The device's examples, read again when they have changed, so that a round trains on the newest ones."""

from __future__ import annotations

import os

from edgefl import data
from edgefl.data import Dataset


class Source:
    """One data SPEC. A file is read again when its size or time has changed; a python callable is asked each time."""

    def __init__(self, spec: str) -> None:
        self._spec = spec
        kind, _, rest = spec.partition("?")[0].partition(":")
        self._path = None if kind == "python" else rest
        self._stamp: tuple[int, int] | None = None
        self._dataset: Dataset | None = None

    def read(self) -> Dataset:
        """All examples as the training part; raises DataError or UsageError."""
        stamp = self._look()
        if self._dataset is None or stamp is None or stamp != self._stamp:
            self._dataset = None  # the old examples need not be in memory beside the new ones
            self._dataset = data.load(self._spec, test_fraction=0)
            self._stamp = stamp
        return self._dataset

    def _look(self) -> tuple[int, int] | None:
        if self._path is None or not os.path.exists(self._path):
            return None
        status = os.stat(self._path)
        return status.st_mtime_ns, status.st_size
