"""The contract of a strategy: how updates become the next model.

Design:
  a) Streaming: a strategy adds each update as it comes. A rule that needs every update of a round keeps them in a
     spill on disk (spill.py), never in memory.
  b) The delta is local − global, so the server optimizer adds: w ← w + η_s · Δ.
  c) What outlives a round is `state`. The aggregator writes it in the transaction that commits the model, and gives it
     back with that model. Only `finish` changes it, and never in place: an array that `state` returned stays as it is.
  d) The same updates give the same bits, in whatever order they come.
  e) A strategy knows nothing of deadlines, presence or the network.

Most strategies are three parts: pre → combine → server optimizer (composed.py).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np

from ..codecs.base import Codec
from ..errors import StoreError, UsageError
from .fit import EVERYTHING, Fit
from .local import LocalRule

State = dict[str, np.ndarray]


class Pulled(Protocol):
    """What decides how far a step of training carries a param."""

    @property
    def optimizer(self) -> str: ...

    @property
    def momentum(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...

    @property
    def prox_mu(self) -> float: ...


class Training(Pulled, Protocol):
    """What a strategy may read of the devices' training settings."""

    @property
    def epochs(self) -> int: ...

    @property
    def batch_size(self) -> int | Literal["all"]: ...

    @property
    def max_steps(self) -> int | None: ...

    @property
    def lr(self) -> float: ...

    def lr_in(self, round: int) -> float:
        """The learning rate of the devices in this round."""


@dataclass(frozen=True)
class Update:
    """What one device reports: its encoded delta and n_k, the number of examples behind it.

    `staleness`: how many versions the model has moved on since the one that the delta starts from. `discounted`: what
    a pre step leaves of n_k; the rest of n_k then counts as a delta of zeros. `decoded` is the delta, (P,) float32, if
    that is known already.

    The device says of its training: `steps`, K_k, and `loss`, the mean loss of its last epoch; 0 and None: not known.
    `start_loss` is the loss of the model that it started from, on the examples that it holds out; None without any.
    `claimed` is the n_k that it reported, if its influence was bounded and `num_examples` is lower for that; `allowed`
    is what it then counts at most, in the weights of the strategy (`Strategy.weigh`).
    """

    device: str
    num_examples: int
    codec: Codec
    payload: bytes | memoryview
    staleness: int = 0
    discounted: int | None = None
    decoded: np.ndarray | None = field(default=None, repr=False, compare=False)
    steps: int = 0
    loss: float | None = None
    claimed: int | None = None
    start_loss: float | None = None
    allowed: int | None = None

    def delta(self, num_params: int) -> np.ndarray:
        """The delta, (P,) float32; CodecError if the payload is malformed."""
        return self.codec.decode(self.payload, num_params) if self.decoded is None else self.decoded

    @property
    def weight(self) -> int:
        """What the delta counts in a sum, n_k unless it was discounted."""
        return self.num_examples if self.discounted is None else self.discounted

    @property
    def examples(self) -> int:
        """n_k as the device reported it: what its steps follow from."""
        return self.num_examples if self.claimed is None else self.claimed

    @property
    def told_loss(self) -> float | None:
        """F_k: the loss of the model that the device started from, or else of its last epoch."""
        return self.loss if self.start_loss is None else self.start_loss


@dataclass(frozen=True)
class Site:
    """Where a strategy works.

    `num_params` is P, of which the first `num_trained` are trained; the others are statistics that training only
    measures. `reports` is the number of updates that a round is known to need room for. Updates are spilled to
    `folder` (None: the system's for temporary files), in at most `spill_bytes`. An update counts for `late_rounds`
    rounds after its own. `devices` is the number of devices, `rounds.expect`; 0: not known.
    """

    num_params: int
    num_trained: int
    reports: int = 1
    folder: Path | None = None
    spill_bytes: int = 2**30
    late_rounds: int = 0
    devices: int = 0


class Part:
    """What strategies and their parts share; each method may be left as it is.

    `fit`: what does not go together with it, and what it needs (fit.py). `grain`: the coarsest quantization
    step, in root mean squares of an update, that it works well with; None: any (auto.py). `carries`: whether what it
    gets of one round is in the steps of later ones too, and so what a codec errs by (auto.py). `by_step`: whether it
    divides updates by what their steps add up to (local_steps.py), and weighs them then.
    """

    fit: Fit = EVERYTHING
    grain: float | None = None
    carries: bool = False
    by_step: bool = False

    def defaults(self, train: Training) -> Mapping[str, Any]:
        """The training settings that devices must have otherwise than `train` has them, by name.

        An option of its own that was left open takes its value from `train`. Called before `prepare`.
        """
        return {}

    def prepare(self, site: Site) -> None:
        """Get ready for rounds at `site`; UsageError if there is not enough room.

        Called at the start of each run, before `restore`.
        """

    def begin(self, round: int, params: np.ndarray) -> None:
        """A part of a strategy is told that round `round` begins from the global `params`, (P,) float32."""

    def state(self) -> State:
        """What the next round needs of the rounds before, by name; {} if it needs nothing."""
        return {}

    def restore(self, state: State) -> None:
        """Go on from what `state` returned; {} goes on from nothing. StoreError if it does not fit."""
        take(state)


class Strategy(Part, ABC):
    """Drive it as `start`, then `add` for each update, then `finish`; a round may end without `finish`."""

    name: str
    options: Mapping[str, Any] = MappingProxyType({})  # what it was made with, for the record of the run
    personal: Sequence[str] = ()  # params that devices keep, where settings say nothing: as `personal.keep`
    sides: Sequence[str] = ()  # the side vectors that go down with each model; see `broadcast`
    sent_sides: Sequence[str] = ()  # those that `local` sends behind each delta: an update is (1 + S) P numbers
    local: LocalRule | None = None  # what its devices do in training, after `defaults`; None: plain local SGD

    def weigh(self, num_examples: int) -> int:
        """What an update of so many examples counts: influence is bounded in these weights."""
        return num_examples

    def reach(self, num_examples: int) -> float:
        """What the length of a delta counts where influence is bounded, if its device has so many examples."""
        return 1.0

    @abstractmethod
    def start(self, params: np.ndarray, round: int) -> None:
        """Begin round `round` from the global `params`, (P,) float32. What was added before is dropped."""

    @abstractmethod
    def add(self, update: Update) -> None:
        """Count one update; CodecError, with nothing changed, if it can't be decoded or would overflow."""

    @abstractmethod
    def finish(self) -> np.ndarray:
        """The next global params, (P,) float32. At least one update must have been added."""

    def broadcast(self) -> Mapping[str, np.ndarray]:
        """The vectors that `sides` names, (P,) float32, finite, for devices to receive with the model.

        Called after `prepare` and `restore`, and with each commit, after `finish`.
        """
        return {}

    def shown(self, sides: Mapping[str, np.ndarray]) -> None:
        """The side vectors as devices decode them, before `start`: a codec may have changed them."""


def take(state: State, **sizes: int) -> list[np.ndarray | None]:
    """The vectors of `state`, float32 of the given sizes; each is None if `state` is empty. StoreError otherwise."""
    if not state:
        return [None] * len(sizes)
    found = {name: (array.dtype.str, array.shape) for name, array in state.items()}
    if found != {name: ("<f4", (size,)) for name, size in sizes.items()}:
        raise StoreError(f"the strategy's state is {found or 'empty'}, expected {sizes}: start with a new state_dir")
    return [state[name] for name in sizes]


def take_number(state: State, name: str) -> float | None:
    """The one float64 of `state`; None if `state` is empty. StoreError otherwise."""
    if not state:
        return None
    found = state.get(name)
    if set(state) != {name} or found is None or found.dtype != np.float64 or found.shape != (1,):
        raise StoreError(f"the strategy's state has {', '.join(state)}, expected {name}: start with a new state_dir")
    return float(found[0])


def below_one(option: str, value: float) -> np.float32:
    """`value` as float32; UsageError names the `option` whose value is not a number from 0 to below 1."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise UsageError(f"{option} is {value!r}: give a number from 0 to below 1")
    single: np.float32 = np.float32(value)
    return single


def rate(option: str, value: float) -> np.float32:
    """`value` as a float32 step; UsageError names the `option` whose value is not a number above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise UsageError(f"{option} is {value!r}: give a number above 0")
    single: np.float32 = np.float32(value)
    return single
