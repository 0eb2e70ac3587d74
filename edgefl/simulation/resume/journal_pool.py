"""JournalPool: a pool before which a journal stands. A result that the journal has is not computed again."""

from __future__ import annotations

from typing import Protocol

from ...device.training import LocalUpdate
from ...errors import EdgeFLError
from ..tasks.task import Task
from ..tasks.workers import Pool


class Results(Protocol):
    """What this needs of a journal."""

    @property
    def replays(self) -> int: ...
    def result(self, task: Task, nth: int) -> LocalUpdate: ...
    def keep(self, task: Task, nth: int, made: LocalUpdate | EdgeFLError) -> None: ...


class JournalPool:
    """Tasks that the journal has no results of wait until the replay is over."""

    def __init__(self, journal: Results, pool: Pool) -> None:
        self._journal, self._pool = journal, pool
        self._tasks: dict[int, tuple[Task, int]] = {}  # by ticket: not yet read, each device's nth
        self._inner: dict[int, int] = {}  # tickets of `pool`
        self._counts: dict[str, int] = {}
        self._tickets = 0

    def add(self, task: Task) -> int:
        self._tickets += 1
        nth = self._counts[task.device] = self._counts.get(task.device, 0) + 1
        self._tasks[self._tickets] = task, nth
        if not self._journal.replays:
            self._inner[self._tickets] = self._pool.add(task)
        return self._tickets

    def result(self, ticket: int) -> LocalUpdate:
        task, nth = self._tasks.pop(ticket)
        if ticket not in self._inner:
            return self._journal.result(task, nth)
        try:
            made = self._pool.result(self._inner.pop(ticket))
        except EdgeFLError as error:
            self._journal.keep(task, nth, error)
            raise
        self._journal.keep(task, nth, made)
        return made

    def drop(self, ticket: int) -> None:
        self._tasks.pop(ticket, None)
        if (inner := self._inner.pop(ticket, None)) is not None:
            self._pool.drop(inner)

    def close(self) -> None:
        self._pool.close()

    def under_way(self) -> dict[str, Task]:
        """The tasks whose results nobody has read yet, by device and number."""
        return {f"{task.device}/{nth}": task for task, nth in self._tasks.values()}

    def go_on(self) -> None:
        """The replay is over: compute what waits."""
        for ticket, (task, _) in self._tasks.items():
            self._inner[ticket] = self._pool.add(task)
