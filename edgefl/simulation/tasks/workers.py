"""Workers: simulated devices' training on real cores, a few tasks ahead of the virtual clock.

Results are the same for any number of workers: a task depends only on itself.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from ...core.trainer import Trainer
from ...device.training import LocalUpdate
from ...errors import UsageError
from ..options import FleetOptions, workers_and_threads
from .task import Task

AHEAD = 2  # tasks under way for each worker: enough to keep it busy, few enough to keep memory flat


class Pool(Protocol):
    """What computes tasks. A ticket stands for a task's result."""

    def add(self, task: Task) -> int:
        """Queue a task; returns the ticket for its result."""

    def result(self, ticket: int) -> LocalUpdate:
        """Wait for a task's result, or its exception."""

    def drop(self, ticket: int) -> None:
        """Drop the task: its result is not wanted any more."""

    def close(self) -> None:
        """Nothing is wanted any more."""


def make_pool(options: FleetOptions, make_trainer: Callable[[int], Trainer]) -> Pool:
    """What the option `engine` names: threads of this process, or the workers of a Ray cluster. A trainer is made for a
    number of threads. UsageError."""
    if options.engine == "local":
        workers, threads = workers_and_threads(options)
        return Workers(workers, lambda: make_trainer(threads))
    if options.threads > 1:
        raise UsageError("threads work with the engine local: Ray's workers take one processor each; leave it out")
    from .ray_pool import RayPool

    return RayPool(options.engine.partition(":")[2], options.workers)


class Workers:
    """Runs `task(trainer)` on one of `count` threads, each with a trainer of its own."""

    def __init__(self, count: int, make_trainer: Callable[[], Trainer]) -> None:
        self._trainers: queue.SimpleQueue[Trainer] = queue.SimpleQueue()
        for _ in range(count):
            self._trainers.put(make_trainer())
        self._pool = ThreadPoolExecutor(count)
        self._limit = AHEAD * count
        self._waiting: dict[int, Task] = {}
        self._under_way: dict[int, Future[LocalUpdate]] = {}
        self._tickets = 0

    def add(self, task: Task) -> int:
        """Queue a task; returns the ticket for its result."""
        self._tickets += 1
        self._waiting[self._tickets] = task
        self._fill()
        return self._tickets

    def result(self, ticket: int) -> LocalUpdate:
        """Wait for a task's result, or its exception."""
        if ticket in self._waiting:
            self._start(ticket)
        try:
            return self._under_way.pop(ticket).result()
        finally:
            self._fill()

    def drop(self, ticket: int) -> None:
        """Drop the task: its result is not wanted any more."""
        self._waiting.pop(ticket, None)
        if (future := self._under_way.pop(ticket, None)) is not None:
            future.cancel()

    def close(self) -> None:
        self._waiting.clear()
        self._pool.shutdown(cancel_futures=True)

    def _fill(self) -> None:
        while self._waiting and len(self._under_way) < self._limit:
            self._start(next(iter(self._waiting)))

    def _start(self, ticket: int) -> None:
        self._under_way[ticket] = self._pool.submit(self._run, self._waiting.pop(ticket))

    def _run(self, task: Task) -> LocalUpdate:
        trainer = self._trainers.get()
        try:
            return task(trainer)
        finally:
            self._trainers.put(trainer)
