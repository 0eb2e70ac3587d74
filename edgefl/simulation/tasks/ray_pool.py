"""RayPool: the tasks of a fleet on the workers of a Ray cluster, for fleets that one machine is too small for.

Design:
  a) The state machines, the clock and the model stay in one process. Workers train, which is a function of the task
     alone. So the bits are those of threads here, if the processors compute alike: a worker with another instruction
     set, or another EdgeFL, is refused before it trains.
  b) What tasks have in common goes into Ray's object store once: all examples, and the model of each round.
  c) A worker that dies is started again and computes its tasks again, which costs time and no bit.

Ray is imported when a pool is made, and is no dependency of EdgeFL (extra `ray`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from msgspec.structs import astuple

from ... import __version__
from ..._core import isa
from ...device.training import LocalUpdate
from ...errors import UsageError
from ...protocol.messages import encode
from ...protocol.trouble import Trouble
from .ray_worker import RayWorker
from .slot_file import whole
from .task import Failed, Task

AHEAD = 2  # tasks under way for each worker
SHARED = 8  # objects that are kept in Ray's store: the examples, the manifest, and the models of the last rounds
START_S = 300.0


class RayPool:
    """`count` workers, or one for each processor of the cluster, of the Ray at `address`; "": one that runs, or else
    one that is started on this machine. UsageError if Ray is missing, or a worker is unfit."""

    def __init__(self, address: str, count: int | None) -> None:
        self._ray = _ray()
        self._owns = not self._ray.is_initialized()
        if self._owns:
            _connect(self._ray, address, count)
        count = count or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        remote = self._ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(RayWorker)
        self._workers = [remote.remote(isa(), __version__) for _ in range(count)]
        self._loads = [0] * count
        self._waiting: dict[int, Task] = {}
        self._under_way: dict[int, tuple[int, Any]] = {}  # ticket -> the worker's place, its promise
        self._store = Store(self._ray, SHARED)
        self._tickets = 0
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        """UsageError if a worker is unfit, or there is no room for so many."""
        promises = [worker.check.remote() for worker in self._workers]
        ready, late = self._ray.wait(promises, num_returns=len(promises), timeout=START_S)
        if late:
            raise UsageError(
                f"the Ray cluster has room for {len(ready)} of {len(promises)} workers: lower --workers, or add nodes"
            )
        for unfit in filter(None, self._ray.get(ready)):
            raise UsageError(f"a Ray worker {unfit}: the bits would differ; run where all machines are alike")

    def add(self, task: Task) -> int:
        self._tickets += 1
        self._waiting[self._tickets] = task
        self._fill()
        return self._tickets

    def result(self, ticket: int) -> LocalUpdate:
        if ticket in self._waiting:
            self._start(ticket)
        place, promise = self._under_way.pop(ticket)
        made = self._ray.get(promise)
        self._loads[place] -= 1
        self._fill()
        blob, slots, norms, failed = made
        if failed is not None:
            raise Failed(Trouble(*failed))
        return LocalUpdate(blob, slots, *norms)

    def drop(self, ticket: int) -> None:
        self._waiting.pop(ticket, None)
        if (found := self._under_way.pop(ticket, None)) is not None:
            self._loads[found[0]] -= 1
            self._ray.cancel(found[1])
        self._fill()

    def close(self) -> None:
        self._waiting.clear()
        for worker in self._workers:
            self._ray.kill(worker)
        if self._owns:
            self._ray.shutdown()

    def _fill(self) -> None:
        while self._waiting and min(self._loads) < AHEAD:
            self._start(next(iter(self._waiting)))

    def _start(self, ticket: int) -> None:
        task = self._waiting.pop(ticket)
        place = self._loads.index(min(self._loads))
        self._loads[place] += 1
        job, (data, rows) = task.job, task.share.rows
        x, y = data.x_train, data.y_train
        promise = self._workers[place].train.remote(
            task.device, manifest=self._store.put(job.manifest, job.manifest.raw), round=encode(job.round),
            params=self._store.put(job.params, job.params), x=self._store.put(x, x), y=self._store.put(y, y), rows=rows,
            numbers={"bytes_down": job.bytes_down, "max_bytes": job.max_bytes, "judges": job.judges},
            slots={name: astuple(whole(slot)) for name, slot in task.slots.items()}, flip=task.flip,
        )  # fmt: skip
        self._under_way[ticket] = place, promise


class Store:
    """Ray's references to what many tasks share: the `most` objects that were used last."""

    def __init__(self, ray: Any, most: int) -> None:
        self._ray, self._most = ray, most
        self._refs: OrderedDict[int, tuple[object, Any]] = OrderedDict()  # by id; the object, so that the id stays its

    def put(self, key: object, value: object) -> Any:
        """The reference of `value`, which stands for the object `key`; put there once."""
        if id(key) not in self._refs:
            self._refs[id(key)] = key, self._ray.put(value)
            if len(self._refs) > self._most:
                self._refs.popitem(last=False)
        self._refs.move_to_end(id(key))
        return self._refs[id(key)][1]


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray needs Ray: pip install 'edgefl-toolkit[ray]'") from None
    return ray


def _connect(ray: Any, address: str, count: int | None) -> None:
    """To the Ray at `address`; "": to one that RAY_ADDRESS names or that runs here, or to a new one."""
    usual = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    try:
        if address:
            ray.init(address=address, **usual)
            return
        try:
            ray.init(address="auto", **usual)
        except ConnectionError:
            ray.init(num_cpus=count, include_dashboard=False, **usual)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"can't use Ray ({error}): start it with `ray start --head`, or name its address") from None
