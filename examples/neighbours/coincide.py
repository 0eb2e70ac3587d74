"""Where federated averaging coincides with its neighbours, and where it does not: every way on one task.

python examples/neighbours/coincide.py
"""

from __future__ import annotations

from typing import Any

import gossip
import map_reduce
import numpy as np
import parameter_server
import pooled
import ring_all_reduce
import task

import edgefl


def federated(**settings: Any) -> edgefl.History:
    """A run of the simulator on the same devices: real messages, nothing lost of an update."""
    exact = {"codec": "raw32", "downlink": "raw32", "lr": task.LR, "batch_size": "all"}
    return edgefl.simulate(
        task.MODEL, task.DATA, devices=task.WORKERS, partition=task.PARTITION, rounds=task.STEPS, min_reports=1,
        **exact | settings,
    )  # fmt: skip


def sent(history: edgefl.History) -> float:
    """Kilobytes that a device sent in a round."""
    return sum(record.bytes_up for record in history.rounds) / task.STEPS / task.WORKERS / 1e3


def distributed_minibatch_sgd(each: int) -> np.ndarray:
    """Every worker's gradient is of its own next `each` examples; the step is along their mean."""
    params = task.MODEL.params
    for step in range(task.STEPS):
        gradients = []
        for worker in range(task.WORKERS):
            x, y = (
                np.take(a, range(step * each, (step + 1) * each), axis=0, mode="wrap") for a in task.examples(worker)
            )
            gradients.append(task.TRAINER.gradient(params, x, y))
        params = params - np.float32(task.LR) * np.mean(gradients, axis=0)
    return params


def ways() -> dict[str, tuple[np.ndarray, float | None]]:
    """By name: the params that each way comes to, and the kB that a worker sends in a step or round."""
    size = task.MODEL.params.nbytes / 1e3
    models, ring_bytes = ring_all_reduce.train()
    found: dict[str, tuple[np.ndarray, float | None]] = {
        "gradient descent, all data in one place": (pooled.gradient_descent(), None),
        "MapReduce": (map_reduce.train(), size),
        "ring all-reduce": (models[0], ring_bytes / 1e3),
        "parameter server, with a barrier": (parameter_server.train(0)[0], size),
        "gossip, complete graph": (gossip.train(gossip.complete(task.WORKERS))[0], (task.WORKERS - 1) * size),
    }
    runs = {
        "FedSGD": {"strategy": "fedsgd"},
        "FedAvg, one step on all of a device's data": {},
        "FedAvg, E = 5, B = all": {"epochs": 5},
        "FedAvg, E = 5, B = 10": {"epochs": 5, "batch_size": 10},
        "the same, with the default codecs": {"epochs": 5, "batch_size": 10, "codec": "auto", "downlink": "auto"},
    }
    for name, settings in runs.items():
        history = federated(**settings)
        found[name] = (history.params, sent(history))
    found["parameter server, asynchronous"] = (parameter_server.train()[0], size)
    found["gossip, ring"] = (gossip.train(gossip.ring(task.WORKERS)).mean(axis=0), 2 * size)
    return found


def main() -> None:
    found = ways()
    (reference, _), *_ = found.values()
    print(f"{'':42}  {'from GD':>8}  {'loss':>5}  {'accuracy':>8}  {'kB sent':>7}")
    for name, (params, size) in sorted(found.items(), key=lambda way: task.distance(way[1][0], reference) > 1e-5):
        told = "" if size is None else f"{size:.1f}"
        apart = f"{task.distance(params, reference):.0e}" if params is not reference else ""
        print(f"{name:42}  {apart:>8}  {task.loss(params):5.3f}  {task.accuracy(params):8.3f}  {told:>7}".rstrip())
    apart = task.distance(distributed_minibatch_sgd(10), pooled.minibatch_sgd(80))
    print(f"mini-batches: SGD on 80 examples in one place and D-SGD on 10 of each worker are {apart:.0e} apart")


if __name__ == "__main__":
    main()
