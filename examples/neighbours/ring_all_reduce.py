"""Synchronous SGD without a server: workers in a ring add their gradients up (Patarasuk and Yuan 2009).

The vector is cut into n pieces, one for each worker. In n − 1 turns each worker sends one piece to the next, which adds
its own: then every worker has one piece that is summed up. In n − 1 further turns the sums go round. A worker sends
2 (n − 1) / n of the vector, however many workers there are; a server would have to receive n of them.

Every worker must be there in every turn: one that is slow or gone stops all others.

python examples/neighbours/ring_all_reduce.py
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import task

Link = queue.SimpleQueue[np.ndarray]


def all_reduce(mine: np.ndarray, rank: int, links: list[Link]) -> tuple[np.ndarray, int]:
    """The sum over all workers (P,), and the bytes that this one has sent. `links[r]` leads to worker r."""
    n, receive, send = len(links), links[rank], links[(rank + 1) % len(links)]
    pieces, sent = np.array_split(mine.copy(), n), 0
    for turn in range(n - 1):  # reduce-scatter
        piece = pieces[(rank - turn) % n]
        send.put(piece.copy())
        sent += piece.nbytes
        pieces[(rank - turn - 1) % n] += receive.get()
    for turn in range(n - 1):  # all-gather
        piece = pieces[(rank - turn + 1) % n]
        send.put(piece.copy())
        sent += piece.nbytes
        pieces[(rank - turn) % n] = receive.get()
    return np.concatenate(pieces), sent


def worker(rank: int, links: list[Link], ready: threading.Barrier, steps: int) -> tuple[np.ndarray, int]:
    """A worker has its own copy of the model, and all copies stay the same."""
    params, sent = task.MODEL.params, 0
    for _ in range(steps):
        total, more = all_reduce(task.gradient(params, rank), rank, links)
        params = params - np.float32(task.LR / len(links)) * total
        sent += more
        ready.wait()
    return params, sent


def train(steps: int = task.STEPS) -> tuple[list[np.ndarray], float]:
    """Each worker's model, and the bytes that a worker has sent in each step."""
    links: list[Link] = [queue.SimpleQueue() for _ in range(task.WORKERS)]
    ready = threading.Barrier(task.WORKERS)
    with ThreadPoolExecutor(task.WORKERS) as machines:
        done = [machines.submit(worker, rank, links, ready, steps) for rank in range(task.WORKERS)]
        found = [each.result() for each in done]
    return [params for params, _ in found], float(np.mean([sent for _, sent in found])) / steps


def main() -> None:
    models, sent = train()
    apart = max(task.distance(models[0], other) for other in models)
    print(f"a worker sent {sent / 1e3:.1f} kB a step, of a model of {task.MODEL.params.nbytes / 1e3:.1f} kB")
    print(f"the workers' models differ by {apart:g}")
    print(f"ring all-reduce  loss {task.loss(models[0]):.3f}, accuracy {task.accuracy(models[0]):.3f}")


if __name__ == "__main__":
    main()
