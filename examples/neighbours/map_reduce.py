"""Distributed SGD in the manner of MapReduce (Dean and Ghemawat 2004; for learning, Chu et al. 2006).

A mapper reads one worker's examples and emits, for each block of coordinates, the sum of its gradients and the number
of its examples. The shuffle brings what belongs to one block together. A reducer adds up one block. Then the driver
takes the step. Mappers keep nothing between two steps: one may be run again, anywhere, if its machine has died.

python examples/neighbours/map_reduce.py
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import task

BLOCK = 500  # coordinates
Value = tuple[np.ndarray, int]


def mapper(params: np.ndarray, worker: int) -> Iterator[tuple[int, Value]]:
    """(block, (Σ gradients (BLOCK,), n)) for each block."""
    n = len(task.PARTS[worker])
    total = np.float32(n) * task.gradient(params, worker)
    for start in range(0, len(total), BLOCK):
        yield start, (total[start : start + BLOCK], n)


def reducer(values: Iterable[Value]) -> np.ndarray:
    """The mean gradient of one block."""
    sums, counts = zip(*values, strict=True)
    return np.sum(sums, axis=0, dtype=np.float64) / sum(counts)


def step(params: np.ndarray, machines: ThreadPoolExecutor) -> np.ndarray:
    """One job."""
    emitted = machines.map(lambda worker: list(mapper(params, worker)), range(task.WORKERS))
    shuffled: dict[int, list[Value]] = defaultdict(list)
    for pairs in emitted:
        for block, value in pairs:
            shuffled[block].append(value)
    reduced = machines.map(reducer, (shuffled[block] for block in sorted(shuffled)))
    return params - np.float32(task.LR) * np.concatenate(list(reduced)).astype(np.float32)


def train(steps: int = task.STEPS) -> np.ndarray:
    params = task.MODEL.params
    with ThreadPoolExecutor(task.WORKERS) as machines:
        for _ in range(steps):
            params = step(params, machines)
    return params


def main() -> None:
    params = train()
    print(f"MapReduce  loss {task.loss(params):.3f}, accuracy {task.accuracy(params):.3f}")


if __name__ == "__main__":
    main()
