"""ModelKeeper: carries out what the agent's machine decides about models as files. Imported where [model] asks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from edgefl.device.events import KeepModel, KeepSkeleton, NotKept, TrainJob
from edgefl.device.model.delivery import Wanted
from edgefl.device.personal import Verdict
from edgefl.errors import EdgeFLError

from .afterwards import Afterwards
from .model_config import ModelConfig
from .model_files import ModelFiles

log = logging.getLogger("edgefl.agent")


class ModelKeeper:
    """`feed` gives an event to the machine. UsageError."""

    def __init__(self, config: ModelConfig, state_dir: Path, feed: Callable[[NotKept], None]) -> None:
        self._files, self._afterwards, self._feed = ModelFiles(config, state_dir), Afterwards(config), feed

    def wanted(self) -> Wanted:
        return self._files.wanted()

    def keep(self, action: KeepModel | KeepSkeleton) -> None:
        """Write what has come. A disk that refuses is told, and training goes on: it has nothing to do with that."""
        try:
            if isinstance(action, KeepSkeleton):
                self._files.keep_skeleton(action.blob)
                return
            facts = self._files.keep(action)
        except (OSError, EdgeFLError) as error:
            why = getattr(error, "strerror", None) or str(error)
            log.error("the model's files can't be written: %s %s", why, getattr(error, "filename", None) or "")
            self._feed(NotKept(f"the files of its [model] can't be written: {why}"))
            return
        log.info("model %d is in its files", facts.version)
        self._afterwards.tell()

    def keep_own(self, job: TrainJob, verdict: Verdict) -> None:
        """The device has judged which model it keeps for itself. Called in the thread that trains, which goes on
        whatever becomes of the file."""
        try:
            written = self._files.keep_own(job, verdict)
        except (OSError, EdgeFLError) as error:
            why = getattr(error, "strerror", None) or str(error)
            log.error("[model] personal_file can't be written: %s", why)
            return
        if written:
            log.info("[model] personal_file has %s", "the device's own model" if verdict.own else "the received model")
            self._afterwards.tell()
