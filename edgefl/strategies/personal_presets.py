"""Presets whose devices have something of their own (docs/personal.md): averaging is FedAvg's in all of them."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UsageError
from .base import Strategy
from .combine.mean import Mean
from .composed import Composed
from .fit import EVERYTHING, Fit
from .local import LocalRule
from .presets import preset
from .server.step import Step

OWN_MODEL = Fit(without={"personal": "its devices keep a whole model of their own"})
PLAIN_SGD = Fit(
    without={
        name: "its two models are trained step by step, by plain SGD"
        for name in ("nesterov", "adam", "momentum", "clip", "prox")
    }
)


def _averaged(
    name: str, server_lr: float, *, keep: Sequence[str] = (), local: LocalRule | None = None, fit: Fit = EVERYTHING
) -> Strategy:
    made = Composed(name, combine=Mean(), server=Step(server_lr), fit=fit)
    made.personal, made.local = keep, local
    return made


@preset
def fedper(server_lr: float = 1.0) -> Strategy:
    """FedPer: each device keeps its last layer, all else is averaged (Arivazhagan et al. 2019, arXiv:1912.00818)."""
    return _averaged("fedper", server_lr, keep=("head",))


@preset
def fedrep(head_epochs: int = 1, server_lr: float = 1.0) -> Strategy:
    """FedRep: as FedPer, but a device first trains its last layer alone, `head_epochs` long, then the others alone
    (Collins et al. 2021, arXiv:2102.07078)."""
    _check_epochs("head_epochs", head_epochs)
    return _averaged("fedrep", server_lr, keep=("head",), local=LocalRule("fedrep", {"head_epochs": head_epochs}))


@preset
def fedbn(server_lr: float = 1.0) -> Strategy:
    """FedBN: each device keeps its batch normalization, statistics too (Li et al. 2021, arXiv:2102.07623)."""
    return _averaged("fedbn", server_lr, keep=("bn",))


@preset
def ditto(lam: float = 0.1, server_lr: float = 1.0) -> Strategy:
    """Ditto: FedAvg, and each device trains a model of its own beside it: v ← v − η (∇F_k(v) + lam (v − w))
    (Li et al. 2021, arXiv:2012.04221)."""
    _check("lam", lam, 0, 1e6)
    return _averaged("ditto", server_lr, local=LocalRule("ditto", {"lam": float(lam)}), fit=OWN_MODEL)


@preset
def apfl(alpha: float = 0.5, adapt: int = 1, server_lr: float = 1.0) -> Strategy:
    """APFL: FedAvg, and each device mixes a model of its own with it: α v + (1 − α) w, α from `alpha` on, and learned
    unless `adapt` is 0 (Deng et al. 2020, arXiv:2003.13461)."""
    _check("alpha", alpha, 0, 1)
    if adapt not in (0, 1):
        raise UsageError(f"adapt is {adapt!r}: give 1, or 0 for an α that stays as it is")
    local = LocalRule("apfl", {"alpha": float(alpha), "adapt": float(adapt)})
    return _averaged("apfl", server_lr, local=local, fit=OWN_MODEL | PLAIN_SGD)


@preset
def finetune(epochs: int = 1, lr: float = 0.0, server_lr: float = 1.0) -> Strategy:
    """Fine-tune, then evaluate: FedAvg, and each device trains every model that it receives for `epochs` more before it
    evaluates it, with `lr`, or the devices' learning rate at 0 (Cheng et al. 2021, arXiv:2108.07313)."""
    _check_epochs("epochs", epochs)
    _check("lr", lr, 0, 1e6)
    local = LocalRule("fine-tune", {"epochs": epochs, "lr": float(lr)})
    return _averaged("finetune", server_lr, local=local, fit=OWN_MODEL)


def _check_epochs(option: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10_000:
        raise UsageError(f"{option} is {value!r}: give a whole number from 1 to 10000")


def _check(option: str, value: float, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UsageError(f"{option} is {value!r}: give a number from {least:g} to {most:g}")
