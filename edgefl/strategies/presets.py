"""Presets: strategies by the names that their papers gave them, with the papers' options."""

from __future__ import annotations

from .base import Strategy
from .combine.mean import Mean
from .composed import Composed
from .server.momentum import Momentum
from .server.step import Step


def fedavg(server_lr: float = 1.0) -> Strategy:
    """FedAvg: w ← w + server_lr · Σ n_k Δ_k / Σ n_k (McMahan et al. 2017, arXiv:1602.05629; server_lr 1 is theirs)."""
    return Composed("fedavg", combine=Mean(), server=Step(server_lr))


def fedsgd(lr: float | None = None) -> Strategy:
    """FedSGD: devices send one gradient over all their data, the server takes the step (ibid., section 2).

    With every device reporting it is gradient descent on the pooled data. `lr` None: the devices' learning rate.
    """
    return Composed("fedsgd", combine=Mean(), server=Step(lr, "lr"), mode="gradient")


def fedavgm(server_lr: float = 1.0, momentum: float = 0.9) -> Strategy:
    """FedAvgM: v ← momentum · v + Σ n_k Δ_k / Σ n_k; w ← w + server_lr · v (Hsu et al. 2019, arXiv:1909.06335)."""
    return Composed("fedavgm", combine=Mean(), server=Momentum(server_lr, momentum))
