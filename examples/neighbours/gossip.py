"""Decentralised SGD: no server, and a worker hears only its neighbours (Lian et al. 2017, D-PSGD, arXiv:1705.09056).

    x_i ← Σ_j W_ij (x_j − η ∇F_j(x_j))

W is symmetric and its rows add up to 1: with Metropolis weights any connected graph will do. How fast the workers agree
depends on the graph: on a complete one in a step, on a ring of n in about n².

python examples/neighbours/gossip.py
"""

from __future__ import annotations

import numpy as np
import task

Graph = list[set[int]]  # the neighbours of each worker


def ring(n: int) -> Graph:
    return [{(worker - 1) % n, (worker + 1) % n} for worker in range(n)]


def complete(n: int) -> Graph:
    return [set(range(n)) - {worker} for worker in range(n)]


def metropolis(graph: Graph) -> np.ndarray:
    """W (n, n): 1 / (1 + the greater degree of two neighbours), and what is left for a worker's own."""
    weights = np.zeros((len(graph), len(graph)))
    for worker, neighbours in enumerate(graph):
        for other in neighbours:
            weights[worker, other] = 1 / (1 + max(len(neighbours), len(graph[other])))
        weights[worker, worker] = 1 - weights[worker].sum()
    return weights


def train(graph: Graph, steps: int = task.STEPS) -> np.ndarray:
    """(n, P): each worker's model."""
    weights = metropolis(graph)
    models = np.tile(task.MODEL.params, (len(graph), 1))
    for _ in range(steps):
        moved = [m - np.float32(task.LR) * task.gradient(m, worker) for worker, m in enumerate(models)]
        models = (weights @ np.float64(moved)).astype(np.float32)
    return models


def main() -> None:
    for name, graph in (("ring", ring(task.WORKERS)), ("complete graph", complete(task.WORKERS))):
        models = train(graph)
        mean = models.mean(axis=0)
        apart = max(task.distance(mean, model) for model in models)
        sent = len(graph[0]) * models[0].nbytes / 1e3
        accuracies = [task.accuracy(model) for model in models]
        print(f"{name:14}  {sent:5.1f} kB a worker and step; models up to {apart:.2g} from their mean")
        print(f"{'':14}  accuracy of the worst {min(accuracies):.3f}, of their mean {task.accuracy(mean):.3f}")


if __name__ == "__main__":
    main()
