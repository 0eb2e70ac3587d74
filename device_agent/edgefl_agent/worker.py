"""The thread that trains, so that the MQTT connection's keep-alive never waits for a round.

The compiled core releases the interpreter's lock for a whole epoch.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable

from edgefl.codecs.feedback import Residual
from edgefl.core.trainer import Cancelled, Trainer
from edgefl.data import fit_shape
from edgefl.device.events import Failed, Trained, TrainJob
from edgefl.device.training import make_trainer, train_update
from edgefl.errors import DataError, EdgeFLError

from .source import Source

SAID_HERE = "the log on the device says why"  # and nothing that goes over the network does
log = logging.getLogger("edgefl.agent")


class Worker:
    """Does one job at a time and posts Trained or Failed; nothing for a job that was cancelled.

    `load_residual` is called in the worker's thread.
    """

    def __init__(
        self, device: str, source: Source, *, max_arena_bytes: int, nice: int,
        load_residual: Callable[[], Residual | None], post: Callable[[Trained | Failed], None],
    ) -> None:  # fmt: skip
        self._device, self._source, self._nice = device, source, nice
        self._load_residual, self._post = load_residual, post
        self._max_arena_bytes = max_arena_bytes
        self._jobs: queue.SimpleQueue[TrainJob | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._wanted: TrainJob | None = None
        self._trainer: Trainer | None = None
        self._plan_hash = ""
        self._thread = threading.Thread(target=self._run, name=f"train-{device}", daemon=True)
        self._thread.start()

    def start(self, job: TrainJob) -> None:
        """Train this job next, instead of an earlier one."""
        self.cancel()
        with self._lock:
            self._wanted = job
        self._jobs.put(job)

    def cancel(self) -> None:
        """Stop training at the next step."""
        with self._lock:
            self._wanted = None
            if self._trainer is not None:
                self._trainer.cancel()

    def close(self) -> None:
        self.cancel()
        self._jobs.put(None)
        self._thread.join(5.0)

    def _run(self) -> None:
        thread = threading.get_native_id()
        # Never lower than the agent's own: only root may lower it.
        nice = max(self._nice, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, nice)
        while (job := self._jobs.get()) is not None:
            if job is self._wanted and (event := self._result(job)) is not None:
                self._post(event)
                del event
            del job  # model and update need not stay in memory until the next job

    def _result(self, job: TrainJob) -> Trained | Failed | None:
        """The event to post; None if the job was cancelled."""
        try:
            return Trained(job, *self._train(job))
        except Cancelled:
            return None
        except DataError as error:
            log.error("%s", error)
            return Failed(job, f"its data can't be used: {SAID_HERE}")  # the error may quote them
        except EdgeFLError as error:
            return Failed(job, str(error))
        except MemoryError:
            return Failed(job, "not enough memory to train this model: lower max_arena_mb to refuse it at once")
        except Exception as error:  # the owner's own data code runs in here: its errors must not end the agent
            log.exception("training broke")
            return Failed(job, f"{type(error).__name__}: {SAID_HERE}")

    def _train(self, job: TrainJob) -> tuple[bytes, bytes | None]:
        plan = job.manifest.plan
        if self._trainer is None or self._plan_hash != plan.hash:
            trainer = make_trainer(job, self._max_arena_bytes)
            with self._lock:
                self._trainer, self._plan_hash = trainer, plan.hash
        dataset = fit_shape(self._source.read(), plan.input_shape)
        return train_update(
            self._trainer, job, self._device, dataset.x_train, dataset.y_train, load_residual=self._load_residual,
            wanted=lambda: job is self._wanted,
        )  # fmt: skip
