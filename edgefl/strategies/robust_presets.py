"""Robust strategies by their papers' names (docs/robust.md).

Of a round's devices `f` may be attackers: a number, or a share below 0.5. `before` names steps that come first, such as
"arc+nnm" (mix/); `bucket` is the size of bucketing's groups, `clip_norm` the norm of clip; None: the median.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from ..errors import UsageError, nearest
from .base import Strategy
from .combine.bulyan import Bulyan
from .combine.centred_clipping import CentredClipping
from .combine.geometric_median import GeometricMedian
from .combine.krum import Krum
from .combine.mda import Mda
from .combine.meamed import Meamed
from .combine.median import Median as MedianRule
from .combine.monna import Monna
from .combine.robust import Robust
from .combine.trimmed_mean import TrimmedMean
from .composed import Composed
from .mix import Mix
from .mix.arc import Arc
from .mix.bucketing import Bucketing
from .mix.clip import Clip
from .mix.nnm import Nnm
from .presets import preset
from .rule import Rule
from .server.step import Step

F = 0.2  # of the devices that report
MIXES = ("nnm", "bucketing", "clip", "arc")


def mixes(before: str, bucket: int, clip_norm: float | None) -> list[Mix]:
    """The steps that `before` names; UsageError."""
    if not isinstance(before, str):
        raise UsageError(f"before is {before!r}: give names of {', '.join(MIXES)}, with + between them")
    made: list[Mix] = []
    for name in filter(None, before.split("+")):
        match name:
            case "nnm":
                made.append(Nnm())
            case "bucketing":
                made.append(Bucketing(bucket))
            case "clip":
                made.append(Clip(clip_norm))
            case "arc":
                made.append(Arc())
            case _:
                raise UsageError(f"before names {name!r}: {nearest(name, MIXES)}")
    return made


def robust(rule: Callable[..., Rule]) -> Callable[..., Strategy]:
    """The preset of a rule, by its name: it takes `f`, the rule's own options and what all robust strategies take."""
    name = rule.__name__.replace("_", "-")

    def make(
        f: float = F,
        *,
        before: str = "",
        bucket: int = 2,
        clip_norm: float | None = None,
        server_lr: float = 1.0,
        **own: Any,
    ) -> Strategy:
        combine = Robust(rule(**own), mixes(before, bucket, clip_norm), f=f)
        return Composed(name, combine=combine, server=Step(server_lr))

    signature = inspect.signature(make)
    first, *shared, _ = signature.parameters.values()
    parameters = [first, *inspect.signature(rule).parameters.values(), *shared]
    update_wrapper(make, rule)
    make.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return preset(make)


@robust
def median() -> Rule:
    """Of each coordinate the median (Yin et al. 2018)."""
    return MedianRule()


@robust
def trimmed_mean() -> Rule:
    """Of each coordinate the mean without the f smallest and f largest values (Yin et al. 2018)."""
    return TrimmedMean()


@robust
def geometric_median(*, nu: float | None = None, iterations: int | None = None) -> Rule:
    """The point with the least sum of distances to all updates (RFA: Pillutla et al. 2022)."""
    return GeometricMedian(nu, iterations)


@robust
def krum(*, neighbours: int | None = None) -> Rule:
    """The update that is nearest to its neighbours (Blanchard et al. 2017)."""
    return Krum(1, neighbours)


@robust
def multi_krum(*, m: int | None = None, neighbours: int | None = None) -> Rule:
    """The mean of the m updates that are nearest to their neighbours, k − f unless given (ibid.)."""
    return Krum(m, neighbours)


@robust
def bulyan() -> Rule:
    """Krum's choice of k − 2f updates, then a trimmed mean around the median (El Mhamdi et al. 2018)."""
    return Bulyan()


@robust
def mda() -> Rule:
    """The mean of the k − f updates with the smallest diameter (minimum diameter averaging)."""
    return Mda()


@robust
def meamed() -> Rule:
    """Of each coordinate the mean of the k − f values nearest to the median (Xie et al. 2018)."""
    return Meamed()


@robust
def centred_clipping(*, tau: float | None = None, iterations: int = 1) -> Rule:
    """The delta before, moved by the updates' clipped distances from it (Karimireddy et al. 2021)."""
    return CentredClipping(tau, iterations)


@robust
def monna(*, trusted: str = "") -> Rule:
    """The mean of the k − f updates nearest to that of a trusted device (Farhadkhani et al. 2023)."""
    return Monna(trusted)
