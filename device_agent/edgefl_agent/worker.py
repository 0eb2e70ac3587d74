"""The thread that trains, so that the MQTT connection's keep-alive never waits for a round.

The compiled core releases the interpreter's lock for a whole epoch.

The owner's code that reads the data runs here too, and it may hang or raise anything. The data are read before a job is
taken from the mailbox, which holds the newest job only. So a call that hangs holds no model, and however many rounds
pass meanwhile, one job is in memory.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial

from edgefl.core.columns import Scaling
from edgefl.core.params import params_from_bytes
from edgefl.core.trainer import Cancelled, Trainer
from edgefl.data import Dataset, fit_plan
from edgefl.device.events import DataStamp, Failed, Trained, TrainJob, Unable
from edgefl.device.owner.policy import OPEN, Policy
from edgefl.device.personal import Verdict
from edgefl.device.slots import LoadSlot
from edgefl.device.training import LocalUpdate, make_trainer, train_update
from edgefl.errors import DataError, EdgeFLError, PolicyError
from edgefl.protocol.trouble import OF_TARGETS, SEE_LOG, Trouble

from .source import Source
from .watchdog import Watchdog

CLOSE_S = 0.3  # for the thread to end: a step that takes longer dies with the process
log = logging.getLogger("edgefl.agent")


class Worker:
    """Does one job at a time, the newest, and posts Trained or Failed; nothing for a job that was cancelled.

    `load_slot` is called in the worker's thread, and so is `keep`, with the model that the device is to use for itself.
    """

    def __init__(
        self, device: str, source: Source, *, max_arena_bytes: int, nice: int, cpu_percent: int = 100, threads: int = 1,
        load_slot: LoadSlot, post: Callable[[Trained | Failed | DataStamp], None],
        policy: Policy = OPEN, keep: Callable[[TrainJob, Verdict], None] = lambda job, verdict: None,
    ) -> None:  # fmt: skip
        self._keep = keep
        self._device, self._source, self._nice = device, source, nice
        self._load_slot, self._post = load_slot, post
        self._max_arena_bytes, self._cpu_percent, self._policy = max_arena_bytes, cpu_percent, policy
        self._threads = threads
        self._mail = threading.Condition()
        self._next: TrainJob | None = None  # the mailbox
        self._wanted: TrainJob | None = None  # in the mailbox or at work; None: cancelled
        self._look = False  # whether the data are to be read without a job
        self._closed = self._release = False
        self._deadline_s = 0.0  # of the newest job's round
        self._began: tuple[TrainJob, float] | None = None  # the job at work, and when it had its data
        self._watchdog = Watchdog()
        self._trainer: Trainer | None = None
        self._plan_hash = ""
        self._thread = threading.Thread(target=self._run, name=f"train-{device}", daemon=True)
        self._thread.start()

    def start(self, job: TrainJob) -> None:
        """Train this job next, instead of an earlier one."""
        with self._mail:
            self._interrupt()
            self._next = self._wanted = job
            self._deadline_s = job.round.deadline_s
            self._mail.notify()

    def look_at_data(self) -> None:
        """Read the data and post which they are, unless there is a job, which reads them anyway."""
        with self._mail:
            self._look = True
            self._mail.notify()

    def release(self) -> None:
        """Stop training, and give back the memory of the examples and of the training."""
        with self._mail:
            self._interrupt()
            self._release = True
            self._mail.notify()

    def set_cpu_percent(self, percent: int) -> None:
        """Compute for this share of the time from now on."""
        with self._mail:
            self._cpu_percent = percent
            if self._trainer is not None:
                self._trainer.set_cpu_percent(percent)

    def cancel(self) -> None:
        """Stop training, or evaluating, within a second."""
        with self._mail:
            self._interrupt()

    def _interrupt(self) -> None:
        self._next = self._wanted = None
        if self._trainer is not None:
            self._trainer.cancel()

    @property
    def busy(self) -> bool:
        """Whether there is a job, or one that was cancelled has not ended yet."""
        return self._wanted is not None or self._began is not None

    def look(self, now: float) -> Unable | None:
        """What is new about the owner's code, for the machine; EdgeFLError if the thread has ended."""
        with self._mail:
            job, (at_work, began_at) = self._wanted, self._began or (None, 0.0)
            overdue = job is not None and job is at_work and now > began_at + self._policy.max_seconds
            if job is None or overdue:  # a cancel that came just before training began had no effect
                self._interrupt()
        if job is not None and overdue:
            text = f"refused by this device's owner: a round that trains for more than {self._policy.max_seconds:g} s"
            self._post(Failed(job, text, "policy", final=True))
        if not self._thread.is_alive() and not self._closed:
            raise EdgeFLError(f"the training thread has ended: {SEE_LOG}; start the agent again")
        hung_s = self._watchdog.look(now, self._deadline_s)
        if hung_s is None:
            return None
        return Unable(f"its data source has not answered for {hung_s:.0f} s" if hung_s else "")

    def close(self) -> None:
        with self._mail:
            self._interrupt()
            self._closed = True
            self._mail.notify()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        thread = threading.get_native_id()
        # Never lower than the agent's own: only root may lower it.
        nice = max(self._nice, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, nice)
        while self._is_wanted():
            if (event := self._result()) is not None:
                self._post(event)
            del event  # model and update need not stay in memory until the next job

    def _is_wanted(self) -> bool:
        """Wait for a job to come into the mailbox; False if the agent ends instead."""
        with self._mail:
            self._mail.wait_for(lambda: self._next is not None or self._look or self._release or self._closed)
            return not self._closed

    def _take(self) -> TrainJob | None:
        """The newest job; None if it has been cancelled since."""
        with self._mail:
            job, self._next = self._next, None
            return job

    def _result(self) -> Trained | Failed | DataStamp | None:
        """The event to post; None if the job was cancelled."""
        job = None
        with self._mail:
            look, self._look = self._look, False
            release, self._release = self._release, False
            if release:
                self._trainer, self._plan_hash = None, ""
        if release:
            self._source.forget()
        if not (look or self._next):
            return None
        try:
            dataset = self._read(self._source.read)
            job = self._take()
            if job is None:
                return DataStamp(self._source.stamp) if look else None
            self._began = job, time.monotonic()
            made = self._train(job, dataset)
            return Trained(job, made.blob, made.slots, self._source.stamp, made.norm, made.clipped_from)
        except Cancelled:
            return None
        except BaseException as error:  # the owner's code may raise SystemExit: that must not end the thread
            job = job or self._take()
            return None if job is None else _failed(job, error, self._source.stamp)
        finally:
            self._began = None

    def _read(self, read: Callable[[], Dataset]) -> Dataset:
        self._watchdog.began(time.monotonic())
        try:
            return read()
        except EdgeFLError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(str(error)) from error  # it may quote the data too: a table's first line, as its header
        finally:
            self._watchdog.ended()

    def _train(self, job: TrainJob, dataset: Dataset) -> LocalUpdate:
        plan = job.manifest.plan
        if self._trainer is None or self._plan_hash != plan.hash:
            trainer = make_trainer(job, self._max_arena_bytes, self._threads)
            trainer.set_cpu_percent(self._cpu_percent)
            with self._mail:
                self._trainer, self._plan_hash = trainer, plan.hash
        self._trainer.check_classes(dataset.labels, dataset.target_labels)
        dataset = fit_plan(self._filled(job, dataset), plan)
        return train_update(
            self._trainer, job, self._device, dataset.x_train, dataset.y_train, load_slot=self._load_slot,
            wanted=lambda: job is self._wanted, policy=self._policy, keep=partial(self._keep, job),
        )  # fmt: skip

    def _filled(self, job: TrainJob, dataset: Dataset) -> Dataset:
        """The examples, with what this round wants for blanks: nothing for statistics, and the federation's means once
        the model has them."""
        if job.round.mode == "profile":
            return self._read(self._source.unfilled)
        scaling = Scaling.of(job.manifest.plan)
        params = params_from_bytes(job.params)
        if scaling is None or scaling.is_identity(params) or not self._source.fills:
            return dataset
        means = params[scaling.mean]
        if means.size not in dataset.x_train.shape[1:]:  # windows that the model takes as one long row
            return dataset
        self._source.fill_with(means)
        return self._read(self._source.read)


def _failed(job: TrainJob, error: BaseException, stamp: int) -> Failed:
    """Why the round was not trained, without a word of the data; the log has all of it."""
    if isinstance(error, DataError):
        log.error("%s", error)
    elif not isinstance(error, EdgeFLError | MemoryError):
        log.error("training broke", exc_info=error)
    why = Trouble.of(error)
    if job.round.mode == "profile":
        return Failed(job, why.text, why.code, final=isinstance(error, PolicyError))
    stays = isinstance(error, PolicyError) or why.code in OF_TARGETS
    return Failed(job, why.text, why.code, stamp if stays else 0)
