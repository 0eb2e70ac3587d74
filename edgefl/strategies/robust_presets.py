"""Robust strategies by their papers' names (docs/robust.md).

Of a round's devices `f` may be attackers: a number, or a share below 0.5. `before` names steps that come first, such as
"arc+nnm" (mix/); `bucket` is the size of bucketing's groups, `clip_norm` the norm of clip; None: the median.
"""

from __future__ import annotations

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
from .combine.rule import Rule
from .combine.trimmed_mean import TrimmedMean
from .composed import Composed
from .mix import Mix
from .mix.arc import Arc
from .mix.bucketing import Bucketing
from .mix.clip import Clip
from .mix.nnm import Nnm
from .presets import preset
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


def _robust(name: str, rule: Rule, f: float, mixes: list[Mix], server_lr: float) -> Strategy:
    return Composed(name, combine=Robust(rule, mixes, f=f), server=Step(server_lr))


@preset
def median(
    f: float = F, *, before: str = "", bucket: int = 2, clip_norm: float | None = None, server_lr: float = 1.0
) -> Strategy:
    """Of each coordinate the median (Yin et al. 2018)."""
    return _robust("median", MedianRule(), f, mixes(before, bucket, clip_norm), server_lr)


@preset
def trimmed_mean(
    f: float = F, *, before: str = "", bucket: int = 2, clip_norm: float | None = None, server_lr: float = 1.0
) -> Strategy:
    """Of each coordinate the mean without the f smallest and f largest values (Yin et al. 2018)."""
    return _robust("trimmed-mean", TrimmedMean(), f, mixes(before, bucket, clip_norm), server_lr)


@preset
def geometric_median(
    f: float = F,
    *,
    nu: float | None = None,
    iterations: int | None = None,
    before: str = "",
    bucket: int = 2,
    clip_norm: float | None = None,
    server_lr: float = 1.0,
) -> Strategy:
    """The point with the least sum of distances to all updates (RFA: Pillutla et al. 2022)."""
    return _robust("geometric-median", GeometricMedian(nu, iterations), f, mixes(before, bucket, clip_norm), server_lr)


@preset
def krum(
    f: float = F,
    *,
    neighbours: int | None = None,
    before: str = "",
    bucket: int = 2,
    clip_norm: float | None = None,
    server_lr: float = 1.0,
) -> Strategy:
    """The update that is nearest to its neighbours (Blanchard et al. 2017)."""
    return _robust("krum", Krum(1, neighbours), f, mixes(before, bucket, clip_norm), server_lr)


@preset
def multi_krum(
    f: float = F,
    *,
    m: int | None = None,
    neighbours: int | None = None,
    before: str = "",
    bucket: int = 2,
    clip_norm: float | None = None,
    server_lr: float = 1.0,
) -> Strategy:
    """The mean of the m updates that are nearest to their neighbours, k − f unless given (ibid.)."""
    return _robust("multi-krum", Krum(m, neighbours), f, mixes(before, bucket, clip_norm), server_lr)


@preset
def bulyan(
    f: float = F, *, before: str = "", bucket: int = 2, clip_norm: float | None = None, server_lr: float = 1.0
) -> Strategy:
    """Krum's choice of k − 2f updates, then a trimmed mean around the median (El Mhamdi et al. 2018)."""
    return _robust("bulyan", Bulyan(), f, mixes(before, bucket, clip_norm), server_lr)


@preset
def mda(
    f: float = F, *, before: str = "", bucket: int = 2, clip_norm: float | None = None, server_lr: float = 1.0
) -> Strategy:
    """The mean of the k − f updates with the smallest diameter (minimum diameter averaging)."""
    return _robust("mda", Mda(), f, mixes(before, bucket, clip_norm), server_lr)


@preset
def meamed(
    f: float = F, *, before: str = "", bucket: int = 2, clip_norm: float | None = None, server_lr: float = 1.0
) -> Strategy:
    """Of each coordinate the mean of the k − f values nearest to the median (Xie et al. 2018)."""
    return _robust("meamed", Meamed(), f, mixes(before, bucket, clip_norm), server_lr)


@preset
def centred_clipping(
    f: float = F,
    *,
    tau: float | None = None,
    iterations: int = 1,
    before: str = "",
    bucket: int = 2,
    clip_norm: float | None = None,
    server_lr: float = 1.0,
) -> Strategy:
    """The delta before, moved by the updates' clipped distances from it (Karimireddy et al. 2021)."""
    return _robust("centred-clipping", CentredClipping(tau, iterations), f, mixes(before, bucket, clip_norm), server_lr)


@preset
def monna(
    f: float = F,
    *,
    trusted: str = "",
    before: str = "",
    bucket: int = 2,
    clip_norm: float | None = None,
    server_lr: float = 1.0,
) -> Strategy:
    """The mean of the k − f updates nearest to that of a trusted device (Farhadkhani et al. 2023)."""
    return _robust("monna", Monna(trusted), f, mixes(before, bucket, clip_norm), server_lr)
