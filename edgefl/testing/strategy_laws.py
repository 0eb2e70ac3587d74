"""The laws of a strategy. They say nothing of how well it learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from .. import codecs
from ..core.accumulator import SCALE
from ..errors import CodecError, UsageError
from ..strategies import Site, State, Strategy, Update
from .law import require

P = 50
RAW32 = codecs.get("raw32")


def check_strategy(make: Callable[[], Strategy]) -> None:
    """Order does not matter; a round leaves no trace unless it finishes; state is complete; params stay as they are."""
    if isinstance(make, Strategy) or not callable(make):
        raise UsageError(f"make is {make!r}: give a function that makes the strategy anew")
    _check_order(make)
    _check_abandoned_rounds(make)
    _check_refusals(make)
    _check_state(make)


@dataclass(frozen=True)
class _Train:
    epochs: int = 2
    batch_size: int = 10
    max_steps: int | None = 100
    lr: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    prox_mu: float = 0.0

    def lr_in(self, round: int) -> float:
        return self.lr * 0.9 ** (round - 1)

    def steps(self, num_examples: int) -> int:
        return min(100, 2 * -(-num_examples // 10))


def _made(make: Callable[[], Strategy]) -> Strategy:
    """A strategy as a host gets it ready; the last 5 params are statistics that only training measures."""
    strategy = make()
    require(isinstance(strategy, Strategy), "a strategy derives from edgefl.strategies.Strategy")
    require(isinstance(strategy.name, str) and bool(strategy.name), "a strategy has a name")
    dict(strategy.defaults(_Train()))
    strategy.prepare(Site(P, P - 5, reports=7, spill_bytes=64 * 4 * P, late_rounds=2, devices=6))
    return strategy


def _size(strategy: Strategy) -> int:
    """The numbers of an update: the delta and the side vectors behind it."""
    return (1 + len(strategy.sent_sides)) * P


def _updates(seed: int, size: int) -> list[Update]:
    """Five devices' updates of so many numbers, one of them late, and another one late in the same round."""
    rng = np.random.default_rng(seed)
    out = []
    for device, num_examples, staleness in (("a", 1, 0), ("b", 600, 0), ("c", 37, 2), ("d", 5, 0), ("b", 600, 1)):
        steps, loss = _Train().steps(num_examples), float(np.float32(rng.uniform(0.1, 3)))
        payload = RAW32.encode(_delta(rng, size))
        out.append(Update(device, num_examples, RAW32, payload, staleness, steps=steps, loss=loss))
    return out


def _delta(rng: np.random.Generator, size: int) -> np.ndarray:
    return (np.rint(rng.normal(0, 0.1, size) * SCALE) / SCALE).astype(np.float32)


def _start_params() -> np.ndarray:
    params = np.random.default_rng(0).normal(size=P).astype(np.float32)
    params.flags.writeable = False
    return params


def _round(strategy: Strategy, params: np.ndarray, number: int, updates: list[Update]) -> np.ndarray:
    before = params.tobytes()
    strategy.start(params, number)
    for update in updates:
        strategy.add(update)
    result = strategy.finish()
    require(result.dtype == np.float32 and result.shape == (P,), "finish gives (P,) float32")
    require(bool(np.isfinite(result).all()), "finish gives finite numbers")
    require(params.tobytes() == before, "the params of the round's start stay as they are")
    model: np.ndarray = result.copy()
    model.flags.writeable = False
    return model


def _run(strategy: Strategy, params: np.ndarray, rounds: range) -> np.ndarray:
    for number in rounds:
        params = _round(strategy, params, number, _updates(number, _size(strategy)))
    return params


def _bits(state: State) -> dict[str, tuple[str, bytes]]:
    return {key: (f"{array.dtype}{array.shape}", array.tobytes()) for key, array in state.items()}


def _check_order(make: Callable[[], Strategy]) -> None:
    updates, params = _updates(1, _size(_made(make))), _start_params()
    expected = _round(_made(make), params, 1, updates)
    for order in list(permutations(range(len(updates))))[1::7]:
        again = _round(_made(make), params, 1, [updates[place] for place in order])
        require(again.tobytes() == expected.tobytes(), "the order of the updates changes no bit")


def _check_abandoned_rounds(make: Callable[[], Strategy]) -> None:
    """After a round that never finished, in the first round and later."""
    for earlier in (range(1, 1), range(1, 3)):
        disturbed, plain = _made(make), _made(make)
        params = _run(disturbed, _start_params(), earlier)
        _run(plain, _start_params(), earlier)
        before = _bits(disturbed.state())
        disturbed.start(params, 8)
        size = _size(plain)
        for update in _updates(99, size):
            disturbed.add(update)
        require(_bits(disturbed.state()) == before, "only finish changes the state")
        one, other = (_round(strategy, params, 9, _updates(9, size)) for strategy in (disturbed, plain))
        require(one.tobytes() == other.tobytes(), "a round that was abandoned leaves nothing behind")


def _check_refusals(make: Callable[[], Strategy]) -> None:
    size, params = _size(_made(make)), _start_params()
    updates = _updates(1, size)
    expected = _round(_made(make), params, 1, updates)
    good = updates[0].payload
    bad = [
        Update("x", 0, RAW32, good, steps=2, loss=0.5),
        Update("x", 2**32 + 1, RAW32, good, steps=100, loss=0.5),
        Update("x", 1, RAW32, good[:-1], steps=2, loss=0.5),
        Update("x", 1, RAW32, np.full(size, np.nan, "<f4").tobytes(), steps=2, loss=0.5),
    ]
    strategy = _made(make)
    strategy.start(params, 1)
    for update in [*bad, *updates, *bad]:
        try:
            strategy.add(update)
        except CodecError:
            require(update in bad, "a good update is taken")
        else:
            require(update not in bad, f"an update of {update.num_examples} examples must be refused with CodecError")
    require(strategy.finish().tobytes() == expected.tobytes(), "an update that is refused changes no bit")


def _check_state(make: Callable[[], Strategy]) -> None:
    """A strategy that gets the state of another goes on as that one, and what `state` returned never changes."""
    whole, kept = _made(make), []
    params = _start_params()
    for number in range(1, 4):
        params = _round(whole, params, number, _updates(number, _size(whole)))
        kept.append((params, whole.state(), _bits(whole.state())))
    require(all(_bits(state) == bits for _, state, bits in kept), "an array that state() returned stays as it is")
    for number, (then, state, _) in enumerate(kept, start=1):
        again = _made(make)
        again.restore({key: array.copy() for key, array in state.items()})
        require(_bits(again.state()) == _bits(state), "restore takes what state gave")
        result = _run(again, then, range(number + 1, 4))
        require(result.tobytes() == params.tobytes(), "a restored strategy goes on bit for bit")
        require(_bits(again.state()) == kept[-1][2], "a restored strategy ends in the same state")
    whole.restore(kept[0][1])
    result = _run(whole, kept[0][0], range(2, 4))
    require(result.tobytes() == params.tobytes(), "restore also takes a strategy back")
