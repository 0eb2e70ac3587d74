"""Presets: strategies by the names that their papers gave them, with the papers' options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from .base import Strategy
from .combine.fair import Fair
from .combine.mean import Mean
from .combine.mixing import Mixing
from .combine.normalized import Normalized
from .composed import Composed
from .fit import Fit
from .server.adaptive import Adaptive
from .server.momentum import Momentum
from .server.step import Step

P = ParamSpec("P")
NO_STEPS = "devices send one gradient and take no step"
NO_TRAINING = Fit(
    without={
        "personal": "devices only send a gradient, and train nothing that they could keep",
        **dict.fromkeys(("nesterov", "adam", "momentum", "clip", "prox", "decay"), NO_STEPS),
    }
)


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
    return Composed("fedsgd", combine=Mean(), server=Step(lr, "lr"), mode="gradient", fit=NO_TRAINING)


@preset
def fedavgm(server_lr: float = 1.0, momentum: float = 0.9) -> Strategy:
    """FedAvgM: v ← momentum · v + Σ n_k Δ_k / Σ n_k; w ← w + server_lr · v (Hsu et al. 2019, arXiv:1909.06335)."""
    return Composed("fedavgm", combine=Mean(), server=Momentum(server_lr, momentum))


@preset
def fedadagrad(server_lr: float = 0.01, tau: float = 1e-3, beta1: float = 0.0) -> Strategy:
    """FedAdagrad: m ← beta1 m + (1 − beta1) Δ; v ← v + Δ²; w ← w + server_lr · m / (√v + tau) (Reddi et al. 2021,
    arXiv:2003.00295; tau is how adaptive the step is, and beta1 0 in their experiments)."""
    return Composed("fedadagrad", combine=Mean(), server=Adaptive("adagrad", server_lr, beta1=beta1, tau=tau))


@preset
def fedadam(server_lr: float = 0.01, tau: float = 1e-3, beta1: float = 0.9, beta2: float = 0.99) -> Strategy:
    """FedAdam: as FedAdagrad, with v ← beta2 v + (1 − beta2) Δ² (ibid.)."""
    server = Adaptive("adam", server_lr, beta1=beta1, beta2=beta2, tau=tau)
    return Composed("fedadam", combine=Mean(), server=server)


@preset
def fedyogi(server_lr: float = 0.01, tau: float = 1e-3, beta1: float = 0.9, beta2: float = 0.99) -> Strategy:
    """FedYogi: as FedAdagrad, with v ← v − (1 − beta2) Δ² sign(v − Δ²) (ibid.)."""
    server = Adaptive("yogi", server_lr, beta1=beta1, beta2=beta2, tau=tau)
    return Composed("fedyogi", combine=Mean(), server=server)


@preset
def fednova(server_lr: float = 1.0) -> Strategy:
    """FedNova: each delta is divided by its number of steps before it is averaged, so that devices with more steps do
    not pull the model to themselves (Wang et al. 2020, arXiv:2007.07481)."""
    return Composed("fednova", combine=Normalized(), server=Step(server_lr))


@preset
def qfedavg(q: float = 1.0) -> Strategy:
    """q-FedAvg: devices count by n_k F_k^q, so that those with a high loss F_k catch up (Li et al. 2020,
    arXiv:1905.10497)."""
    return Composed("qfedavg", combine=Fair(q), server=Step(1.0))


@preset
def fedasync(
    alpha: float = 0.6, damping: str = "polynomial", a: float | None = None, b: float | None = None
) -> Strategy:
    """FedAsync: w ← (1 − α_k) w + α_k w_k with α_k = alpha · s(staleness) (Xie et al. 2019, arXiv:1903.03934).

    With `rounds.goal` 1 each update makes a model, as in the paper. `damping` is s: "constant", "polynomial", (1 +
    staleness)^−a, or "hinge", 1 up to b versions and 1 / (a (staleness − b) + 1) beyond. a is 0.5 and b 4 where they
    are not given."""
    return Composed("fedasync", combine=Mixing(alpha, damping, a, b), server=Step(1.0), pre=())
