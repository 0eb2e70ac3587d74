"""Presets: strategies by the names that their papers gave them, with the papers' options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from .base import Strategy
from .combine.mean import Mean
from .composed import Composed
from .server.momentum import Momentum
from .server.step import Step

P = ParamSpec("P")


def preset(make: Callable[P, Strategy]) -> Callable[P, Strategy]:
    """`make`, whose strategies know the options that they were made with."""

    @wraps(make)
    def made(*args: P.args, **options: P.kwargs) -> Strategy:
        strategy = make(*args, **options)
        given = inspect.signature(make).bind(*args, **options).arguments
        strategy.options = {name: value for name, value in given.items() if value is not None}
        return strategy

    return made


@preset
def fedavg(server_lr: float = 1.0) -> Strategy:
    """FedAvg: w ← w + server_lr · Σ n_k Δ_k / Σ n_k (McMahan et al. 2017, arXiv:1602.05629; server_lr 1 is theirs)."""
    return Composed("fedavg", combine=Mean(), server=Step(server_lr))


@preset
def fedsgd(lr: float | None = None) -> Strategy:
    """FedSGD: devices send one gradient over all their data, the server takes the step (ibid., section 2).

    With every device reporting it is gradient descent on the pooled data. `lr` None: the devices' learning rate.
    """
    return Composed("fedsgd", combine=Mean(), server=Step(lr, "lr"), mode="gradient")


@preset
def fedavgm(server_lr: float = 1.0, momentum: float = 0.9) -> Strategy:
    """FedAvgM: v ← momentum · v + Σ n_k Δ_k / Σ n_k; w ← w + server_lr · v (Hsu et al. 2019, arXiv:1909.06335)."""
    return Composed("fedavgm", combine=Mean(), server=Momentum(server_lr, momentum))
