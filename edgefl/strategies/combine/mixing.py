"""Mixing: FedAsync's step towards the model of a device (Xie et al. 2019, arXiv:1903.03934, Algorithm 1).

    w ← (1 − α_k) w + α_k (w_b + Δ_k)        α_k = α · s(t − b), b: the version that device k trained from

So the round's delta is α_k (w_b + Δ_k − w); of several updates in one round, their mean. With FedBuff's rule an old
update adds Δ_k wherever the model is by now; here it pulls the model back towards where that device was.

Each update counts alike, whatever its examples. Where its influence is bounded, α_k is lowered by as much as the bound
takes of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...errors import StoreError, UsageError
from ..base import Site, State, Update
from ..fit import Fit
from ..weights import UNIT
from . import Combine
from .real_sum import RealSum, check

Damping = Callable[[int, float, float], float]
# s(t − b) with its options a and b, by their names in the paper (section 5.2)
DAMPING: dict[str, Damping] = {
    "constant": lambda stale, a, b: 1.0,
    "polynomial": lambda stale, a, b: (1.0 + stale) ** -a,
    "hinge": lambda stale, a, b: 1.0 if stale <= b else 1.0 / (a * (stale - b) + 1.0),
}
READS = {"constant": (), "polynomial": ("a",), "hinge": ("a", "b")}
A, B = 0.5, 4.0  # where they are not given

FIT = Fit(
    without={"sync": "each update makes a model", "weights": "each update counts alike"},
    needs={"goal": "a model is made when as many updates have come"},
)


class Mixing(Combine):
    """State: `bases`, (k, P) float32, the models of the last versions, newest first: as many as an update may be late.
    An update that started before these counts as if it had started from the oldest of them."""

    fit = FIT
    alike = True

    def __init__(self, alpha: float, damping: str, a: float | None, b: float | None) -> None:
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha <= 1:
            raise UsageError(f"alpha is {alpha!r}: give a number above 0, at most 1")
        if damping not in DAMPING:
            raise UsageError(f"damping is {damping!r}: choose one of {', '.join(DAMPING)}")
        self._alpha, self._damping = float(alpha), DAMPING[damping]
        self._a, self._b = _options(damping, a, b)
        if damping == "hinge":
            acts = f"no update is late enough for damping=hinge, whose b is {self._b:g}, to do anything"
            self.fit = FIT | Fit(late=int(self._b) + 1, acts=acts)
        self._kept = 0
        self._num_params: int | None = None
        self._bases: tuple[np.ndarray, ...] = ()

    def prepare(self, site: Site) -> None:
        self._kept, self._num_params = site.late_rounds, site.num_params

    def begin(self, round: int, params: np.ndarray) -> None:
        self._params = params

    def start(self, num_params: int) -> None:
        self._sum, self._count = RealSum(num_params), 0

    def add(self, update: Update) -> None:
        check(update)
        delta = update.delta(len(self._params))
        if (stale := min(update.staleness, len(self._bases))) > 0:
            delta = delta + (self._bases[stale - 1] - self._params)
        share = 1.0 if update.allowed is None else update.allowed / UNIT
        self._sum.add(delta, share * self._alpha * self._damping(update.staleness, self._a, self._b))
        self._count += 1

    def finish(self) -> np.ndarray:
        self._bases = (self._params, *self._bases)[: self._kept]
        return (self._sum.total() / self._count).astype(np.float32)

    def state(self) -> State:
        return {"bases": np.stack(self._bases)} if self._bases else {}

    def restore(self, state: State) -> None:
        if not state:
            self._bases = ()
            return
        bases = state.get("bases", np.empty(0))
        fits = set(state) == {"bases"} and bases.dtype == np.float32 and bases.ndim == 2
        if not fits or self._num_params not in (None, bases.shape[1]):
            raise StoreError("the strategy's state is not FedAsync's for this model: start with a new state_dir")
        self._bases = tuple(bases)[: self._kept]


def _options(damping: str, a: float | None, b: float | None) -> tuple[float, float]:
    """a and b; UsageError for those that `damping` does not read, and for an `a` that damps nothing."""
    for name, value in (("a", a), ("b", b)):
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1e6:
            raise UsageError(f"{name} is {value!r}: give a number from 0")
        if name not in READS[damping]:
            raise UsageError(f"{name} is {value:g}, which damping={damping} does not read: leave it out")
    if a == 0:
        raise UsageError("a is 0, so damping does nothing: give a number above 0, or choose damping=constant")
    return A if a is None else float(a), B if b is None else float(b)
