"""A fleet of quadratics: local rules and their strategies without a network or a core, beside the papers in float64.

Device k has F_k(y) = ½ Σ_i curvature_k,i (y_i − centre_k,i)², and takes K_k exact gradient steps in a round. So what is
tested is the algorithm: the rule, the strategy, the slots and what a codec leaves of deltas and side vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgefl import codecs
from edgefl.codecs import Codec
from edgefl.codecs import feedback as error_feedback
from edgefl.codecs.stacked import Stacked
from edgefl.core.trainer import LocalResult
from edgefl.device import local
from edgefl.device.holdout import Shares
from edgefl.device.local.rule import Work
from edgefl.settings import TrainSettings
from edgefl.strategies import Site, Strategy, Update
from edgefl.strategies.local_steps import steps_of

P, TRAINED = 12, 10
RAW32 = codecs.get("raw32")


@dataclass(frozen=True)
class Quadratic:
    """One device's loss; the last two params are statistics, which training sets to the centre."""

    centre: np.ndarray
    curvature: np.ndarray
    examples: int

    def gradient(self, y: np.ndarray) -> np.ndarray:
        return self.curvature * (y - self.centre)


def quadratics(count: int, spread: float = 1.0, seed: int = 0) -> list[Quadratic]:
    """Devices whose losses differ by `spread`, in where they are lowest and in how steep they are."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=P)
    return [
        Quadratic(common + spread * rng.normal(size=P), np.exp(0.7 * spread * rng.normal(size=P)), int(n))
        for n in rng.integers(15, 60, count)
    ]


def optimum(devices: Sequence[Quadratic]) -> np.ndarray:
    """Where the mean of the trained params' losses is lowest."""
    total = sum(device.curvature for device in devices)
    return np.asarray(sum(device.curvature * device.centre for device in devices) / total)[:TRAINED]


def descend(
    device: Quadratic, start: np.ndarray, step: Callable[[np.ndarray, np.ndarray], np.ndarray], steps: int, lr: float,
    momentum: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """The delta of `steps` steps y ← y − lr v, v ← momentum v + step(y, gradient), in float64."""
    y, v = start.astype(np.float64).copy(), np.zeros(P)
    for _ in range(steps):
        v = momentum * v + step(y, device.gradient(y))
        y[:TRAINED] -= lr * v[:TRAINED]
    y[TRAINED:] = device.centre[TRAINED:]
    return np.asarray(y - start)


class _Trainer:
    plan = SimpleNamespace(num_trainable=TRAINED)

    def __init__(self, device: Quadratic, train: TrainSettings) -> None:
        self._device, self._steps = device, steps_of(train, device.examples)

    def fit(self, start: np.ndarray, x: Any, y: Any, **o: Any) -> LocalResult:
        correction = 0.0 if o.get("correction") is None else o["correction"].astype(np.float64)
        base = start.astype(np.float64)

        def step(y: np.ndarray, gradient: np.ndarray) -> np.ndarray:
            return np.asarray(gradient + correction + o["weight_decay"] * y + o["prox_mu"] * (y - base))

        delta = descend(self._device, start, step, self._steps, o["lr"], o["momentum"])
        return LocalResult(delta.astype(np.float32), self._device.examples, self._steps, 0.5)

    def gradient(self, start: np.ndarray, x: Any, y: Any) -> np.ndarray:
        gradient = self._device.gradient(start.astype(np.float64)).astype(np.float32)
        gradient[TRAINED:] = 0
        return gradient


@dataclass
class Fleet:
    """`strategy` and its devices, whose names are their places. `codec` is that of updates, by default with feedback if
    it asks for that; `downlink` changes what devices decode of side vectors."""

    strategy: Strategy
    devices: list[Quadratic]
    train: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=2, batch_size=10, lr=0.05))
    codec: Codec = RAW32
    downlink: Codec = RAW32
    expect: int = 0
    feedback: bool | None = None

    def __post_init__(self) -> None:
        self.strategy.defaults(self.train)
        self.strategy.prepare(Site(P, TRAINED, devices=self.expect or len(self.devices)))
        self.params = np.zeros(P, np.float32)
        self.size = (1 + len(self.strategy.sent_sides)) * P
        if self.strategy.sent_sides:
            self.codec = Stacked(self.codec, self.size // P)
        self.slots: dict[int, dict[str, bytes]] = {}
        self.number = 0
        if self.feedback is None:
            self.feedback = self.codec.feedback
        self.strategy.restore({})

    def trained(self, place: int, sides: dict[str, np.ndarray]) -> tuple[Update, dict[str, bytes]]:
        """The device's update, and the slots that it leaves: as edgefl.device.training makes them."""
        device, slots = self.devices[place], self.slots.get(place, {})
        work = Work(
            _Trainer(device, self.train), self.params, Shares(*[np.zeros(1)] * 4),  # type: ignore[arg-type]
            self.train.in_round(self.number), 0, self.number, load=slots.get, sides=sides,
            mask=None,  # type: ignore[arg-type]
            feedback=bool(self.feedback),
        )  # fmt: skip
        assert self.strategy.local is not None
        learned = local.get(self.strategy.local).train(work)
        delta = np.concatenate([learned.delta, *(learned.sides[name] for name in self.strategy.sent_sides)])
        left: dict[str, bytes] = {}
        if self.feedback:
            own = slots.get("residual")
            residual = None if own is None else error_feedback.unpack(own, self.size)
            payload, rest = error_feedback.encode(self.codec, delta, residual)
            left = {} if rest is None else {"residual": rest}
        else:
            payload = self.codec.encode(delta)
        left.update(learned.keep(delta, lambda: self.codec.decode(payload, self.size)))
        return Update(str(place), device.examples, self.codec, payload, steps=learned.steps, loss=0.5), left

    def round(self, asked: Iterable[int], lost: Iterable[int] = (), abandoned: bool = False) -> None:
        """One round with these devices. The updates of `lost` do not count; those of an abandoned round neither."""
        self.number += 1
        sent = self.strategy.broadcast()
        sides = {name: self.downlink.decode(self.downlink.encode(vector), P) for name, vector in sent.items()}
        self.strategy.shown(sides)
        self.strategy.start(self.params, self.number)
        made = {place: self.trained(place, sides) for place in asked}
        counted = [place for place in made if place not in set(lost)]
        for place in counted:
            self.strategy.add(made[place][0])
        if abandoned or not counted:
            return
        self.params = self.strategy.finish()
        for place in counted:
            self.slots[place] = made[place][1]

    def hold(self, place: int) -> tuple[Update, dict[str, bytes]]:
        """An update of the last round's model that comes late, for `late`."""
        return self.trained(place, {})

    def late(self, asked: Iterable[int], held: dict[int, tuple[Update, dict[str, bytes]]]) -> None:
        """A round in which these updates count beside those of the devices that are asked."""
        self.number += 1
        self.strategy.start(self.params, self.number)
        made = {place: self.trained(place, {}) for place in asked}
        for place, (update, left) in held.items():
            made[place] = replace(update, staleness=1), left
        for update, _ in made.values():
            self.strategy.add(update)
        self.params = self.strategy.finish()
        for place, (_, left) in made.items():
            self.slots[place] = left

    def off(self, devices: Sequence[Quadratic] | None = None) -> float:
        """How far the trained params are from the optimum of `devices`, all if that is None."""
        return float(np.linalg.norm(self.params[:TRAINED] - optimum(devices or self.devices)))
