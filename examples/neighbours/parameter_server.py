"""Asynchronous SGD with a parameter server (Dean et al. 2012, DistBelief; Li et al. 2014).

A worker pulls the params, computes one gradient, pushes it, and begins again; the server takes each step as it comes.
Nobody waits, so others have pushed since a worker has pulled, and its gradient is of params that are no more. With a
bound, a worker that is ahead of the slowest by more than `bound` steps waits for it (stale synchronous parallel, Ho et
al. 2013). A bound of 0 is a barrier after every step: all gradients of a step are of the same params, and it makes no
difference that the server adds them one by one.

Workers here have speeds, on a virtual clock, so that a run repeats.

python examples/neighbours/parameter_server.py
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import task

SPEEDS = (1.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.5, 0.25)  # gradients a second


@dataclass
class Worker:
    """`pulled` are the params that it computes on, of the server's `version`; `steps` it has done."""

    pulled: np.ndarray
    version: int = 0
    steps: int = 0


def train(bound: int | None = None, steps: int = task.STEPS) -> tuple[np.ndarray, float, float]:
    """The params after `steps` times as many pushes as there are workers, how many others had pushed in between, on
    average, and the seconds."""
    params, version, now, between = task.MODEL.params, 0, 0.0, 0
    workers = [Worker(params) for _ in range(task.WORKERS)]
    busy = [(1 / speed, number) for number, speed in enumerate(SPEEDS)]  # when each pushes
    heapq.heapify(busy)
    waiting: list[int] = []
    for _ in range(steps * task.WORKERS):
        now, number = heapq.heappop(busy)
        worker = workers[number]
        params = params - np.float32(task.LR / task.WORKERS) * task.gradient(worker.pulled, number)
        between, version, worker.steps = between + version - worker.version, version + 1, worker.steps + 1
        waiting.append(number)
        slowest = min(other.steps for other in workers)
        for ready in [w for w in waiting if bound is None or workers[w].steps - slowest <= bound]:
            waiting.remove(ready)
            workers[ready].pulled, workers[ready].version = params, version
            heapq.heappush(busy, (now + 1 / SPEEDS[ready], ready))
    return params, between / version, now


def main() -> None:
    for name, bound in (("a barrier", 0), ("at most 3 ahead", 3), ("no bound", None)):
        params, between, seconds = train(bound)
        told = f"loss {task.loss(params):.3f}, accuracy {task.accuracy(params):.3f}"
        print(f"{name:16}  {seconds:4.0f} s, {between:3.1f} pushes in between, {told}")
    params, _, _ = train(0)
    print(f"with a barrier: accuracy {task.accuracy(params):.3f}")


if __name__ == "__main__":
    main()
