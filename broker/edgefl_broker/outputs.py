"""The model as files in the aggregator's state folder, and its skeleton for devices.

    model.onnx      the newest version
    best.onnx       the version with the best score, once there is a score
    skeleton.bin    what a device, or `edgefl download`, puts a file together from; missing if that can't be proven
    plan.json       the plan

Every ONNX file says in its metadata which version it is (core/stamp.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from edgefl.atomic import write_atomically
from edgefl.core.params import params_sha256
from edgefl.core.protobuf import metadata_of, without_stamp
from edgefl.core.stamp import Facts
from edgefl.errors import ModelError
from edgefl.history_record import RoundRecord
from edgefl.hosting.versions import PLAN, SKELETON
from edgefl.onnx import skeleton
from edgefl.onnx.model import Model

from .tags import TagTable

NEWEST, BEST_FILE = "model.onnx", "best.onnx"
log = logging.getLogger("edgefl.aggregator")


class Scores(Protocol):
    """What a version is worth."""

    @property
    def accuracy(self) -> float | None: ...
    @property
    def loss(self) -> float | None: ...


class ModelFiles:
    """`skeleton`: b"" if not proven. `labels` and `columns` are the test data's, if they have names, or else those
    that the first file's metadata have: each file has them, as JSON."""

    def __init__(
        self, folder: Path, model: Model, federation: str, run: str, *, labels: Sequence[str] = (),
        columns: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._folder, self._model, self._federation, self._run = folder, model, federation, run
        known = {"labels": labels, "columns": columns}
        self._notes = {name: msgspec.json.encode(words).decode() for name, words in known.items() if words}
        own = metadata_of(model.source)  # of edgefl/onnx/scaling.py and adapters.py, and of `edgefl new`
        self._notes = {name: own[name] for name in ("labels", "columns", "scaling") if name in own} | self._notes
        beside = {"adapters": own["adapters"]} if model.adapters is not None else {}
        self.skeleton = self._skeleton(self._notes | beside)
        if model.adapters is not None and not model.adapters.settings.merge:
            self._notes |= beside

    def _skeleton(self, notes: Mapping[str, str]) -> bytes:
        """Adapters stay beside their weights in it: it only puts numbers in place."""
        try:
            return skeleton.make(self._model).with_notes(notes).to_bytes()
        except ModelError as error:
            log.warning("devices get no ONNX file of this model, only its params: %s", error)
            return b""

    def begin(self) -> None:
        """Write what no version changes. OSError."""
        write_atomically(self._folder / PLAN, self._model.plan.to_bytes())
        if self.skeleton:
            write_atomically(self._folder / SKELETON, self.skeleton)
        else:
            (self._folder / SKELETON).unlink(missing_ok=True)

    def write(self, name: str, params: np.ndarray, version: int, round: int, scores: Scores | None) -> None:
        """Write `params`, which are of `version`, with its `scores`. ModelError, OSError."""
        facts = Facts(
            self._federation, self._run, version, round, self._model.plan.hash, params_sha256(params),
            None if scores is None else scores.accuracy, None if scores is None else scores.loss,
        )  # fmt: skip
        write_atomically(self._folder / name, [without_stamp(self._model.to_bytes(params)), facts.stamp(self._notes)])

    def follow(self, record: RoundRecord, params: np.ndarray | None, tags: TagTable) -> None:
        """A round is committed: the newest version as a file, and the best one if it is another."""
        if params is not None:
            self.write(NEWEST, params, record.version, record.round, record)
        if tags.learn(record):
            self.write_best(tags)

    def write_best(self, tags: TagTable) -> None:
        """The best version as a file, if there is one."""
        best, params = tags.best, tags.best_params()
        if best is not None and params is not None:
            self.write(BEST_FILE, params, best.version, best.round, best)
