"""Reddi et al. 2021 (arXiv:2003.00295), table 1: adaptive server optimizers against plain ones.

The paper sees large gains for its autoencoder, whose gradients are sparse in scale, and next to none for Shakespeare.
Its data there are EMNIST by writer and LEAF's roles; ours are MNIST by writer and the roles of `shakespeare:`. So
figures are not the paper's: the order of the strategies is what is compared.

Each strategy is tuned on an equal budget: six pairs of client and server learning rates, one seed, a fifth of the
rounds. The score is the mean over the last tenth of the rounds, as in the paper over the last hundred.
"""

from __future__ import annotations

from typing import Any

from cells import Cell

FLEET: dict[str, Any] = {
    "min_reports": 1, "codec": "raw32", "downlink": "raw32", "span": 1, "partition": "natural", "epochs": 1,
}  # fmt: skip
ADAPTIVE = ("fedadagrad", "fedadam", "fedyogi")
PLAIN = ("fedavg", "fedavgm")

# Table 1, test accuracy in percent; for the autoencoder 1000 times the mean squared error.
PUBLISHED = {
    "autoencoder": {"fedadagrad": 4.20, "fedadam": 1.01, "fedyogi": 0.98, "fedavgm": 1.65, "fedavg": 6.47},
    "lstm": {"fedadagrad": 57.5, "fedadam": 57.0, "fedyogi": 57.2, "fedavgm": 57.3, "fedavg": 56.9},
}
TASKS: dict[str, dict[str, Any]] = {
    "autoencoder": {"devices": 500, "fraction": 0.02, "batch_size": 20, "loss": None, "rounds": 300},
    "lstm": {"devices": 1000, "fraction": 0.01, "batch_size": 10, "loss": None, "rounds": 100},
}
# log10 of the server's rates for the adaptive ones, whose moves have the size of the rate; plain ones scale a delta.
SERVER = {"fedadagrad": (-2.0, -1.5, -1.0), "fedadam": (-2.5, -2.0, -1.5), "fedyogi": (-2.5, -2.0, -1.5)}
CLIENT = {"autoencoder": (1.0, 4.0), "lstm": (0.5, 1.5)}


def cells() -> list[Cell]:
    return [_cell(task, strategy) for task in TASKS for strategy in (*PLAIN, *ADAPTIVE)]


def _cell(task: str, strategy: str) -> Cell:
    spec = dict(TASKS[task])
    rounds = spec.pop("rounds")
    spec.pop("loss")
    rates = [10**power for power in SERVER.get(strategy, ())] or [1.0, 0.5, 1.5]
    tries = tuple(
        {"lr": lr, "strategy": f"{strategy}:server_lr={rate:.6g}"} for lr in CLIENT[task] for rate in rates
    )  # fmt: skip
    return Cell(
        "reddi", f"{task} {strategy}", task, FLEET | spec, tries, most=rounds, short=max(10, rounds // 5),
        published=PUBLISHED[task][strategy], score="loss" if task == "autoencoder" else "accuracy",
    )  # fmt: skip
