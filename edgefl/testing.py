"""The laws that every codec and every strategy keeps, ours and plug-ins alike. Run them in your own tests.

    from edgefl.testing import check_codec, check_strategy

    def test_my_codec():
        check_codec(MyCodec(step=2.0))

    def test_my_strategy():
        check_strategy(lambda: MyStrategy())

Both raise AssertionError with the law that is broken. They take seconds, draw nothing at random and need no network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from . import codecs
from .codecs import Codec
from .core.accumulator import SCALE, Accumulator
from .core.plan import Param
from .errors import CodecError, UsageError
from .strategies import Site, State, Strategy, Update

SIZES = (1, 2, 31, 1000)


class BrokenLaw(AssertionError):
    """What `check_codec` and `check_strategy` raise."""


def check_codec(codec: Codec) -> None:
    """Pure; bounded; decode and accumulate agree exactly; zeros stay zeros; a refusal leaves no trace."""
    if not isinstance(codec, Codec):
        raise UsageError(f"codec is {codec!r}: give an object of edgefl.codecs.Codec")
    for delta in _deltas():
        payload = _encoded(codec, delta)
        if payload is None:
            continue
        decoded = codec.decode(payload, len(delta))
        _require(decoded.shape == delta.shape and decoded.dtype == np.float32, "decode gives (P,) float32")
        _require(bool(np.isfinite(decoded).all()), "what is decoded is finite")
        _require(not codec.lossless or decoded.tobytes() == delta.tobytes(), "a lossless codec gives the very bits")
        _require(bool(delta.any()) or not decoded.any(), "a delta of zeros decodes to zeros")
        _require(codec.decode(memoryview(payload), len(delta)).tobytes() == decoded.tobytes(), "a memoryview will do")
        _check_sum(codec, payload, decoded)
        _check_damage(codec, payload, len(delta))
    _check_what_can_not_be_encoded(codec)
    _check_tensors(codec)


def _deltas() -> Iterator[np.ndarray]:
    """Zeros, Gaussians, one spike, numbers of every scale; multiples of 2^-30, as training gives them."""
    rng = np.random.default_rng(1)
    for size in SIZES:
        spike = np.zeros(size, np.float32)
        spike[size // 2] = 3.0
        yield from (np.zeros(size, np.float32), spike)
        for scale in (1e-3, 1.0, 100.0):
            normal = rng.normal(0, scale, size)
            yield (np.rint(normal * SCALE) / SCALE).astype(np.float32)
    yield (2.0 ** rng.integers(-30, 8, 500)).astype(np.float32) * rng.choice([-1, 1], 500).astype(np.float32)


def _encoded(codec: Codec, delta: np.ndarray) -> bytes | None:
    """The payload; None if the codec's own budget is too small for this delta."""
    before = delta.tobytes()
    try:
        payload = codec.encode(delta)
    except CodecError as error:
        _require(codec.max_bytes is not None, f"without a budget, a finite delta can be encoded: {error}")
        return None
    _require(isinstance(payload, bytes), "encode gives bytes")
    _require(delta.tobytes() == before, "encode leaves its delta as it is")
    delta = delta.copy()
    delta.flags.writeable = False
    _require(codec.encode(delta) == payload, "the same delta gives the same bytes")
    _require(copy.copy(codec).encode(delta) == payload, "a copy of a codec gives the same bytes")
    _require(len(payload) <= codec.bound(len(delta)), "no payload is longer than bound()")
    _require(codec.max_bytes is None or len(payload) <= codec.max_bytes, "no payload is longer than max_bytes")
    return payload


def _check_sum(codec: Codec, payload: bytes, decoded: np.ndarray) -> None:
    """accumulate adds exactly weight times what decode gives, rounded to the accumulator's grid."""
    for weight in (1, 600):
        ours, expected = Accumulator(len(decoded)), Accumulator(len(decoded))
        ours.add_f32(np.ones(len(decoded), "<f4").tobytes(), 5)
        expected.merge(ours)
        codec.accumulate(payload, weight, ours)
        expected.add_f32(decoded.astype("<f4").tobytes(), weight)
        _require(ours.acc.tobytes() == expected.acc.tobytes(), "accumulate adds the weight times what decode gives")
        _require((ours.weight, ours.count) == (expected.weight, expected.count), "accumulate counts the update once")


def _check_damage(codec: Codec, payload: bytes, num_params: int) -> None:
    """Each truncation and each other number of params is refused, and changes nothing."""
    for length in sorted({*range(min(len(payload), 40)), len(payload) // 2, len(payload) - 1} - {len(payload), -1}):
        _check_refusal(codec, payload[:length], num_params, 1, "a payload that was cut short")
    _check_refusal(codec, payload + b"\0", num_params, 1, "a payload with a byte too many")
    for weight in (0, -1, 2**32 + 1):
        accumulator = _filled(num_params)
        with _unchanged(accumulator, f"weight {weight}"):
            codec.accumulate(payload, weight, accumulator)
    rng = np.random.default_rng(2)
    for _ in range(20):  # what decodes must still be sound: only the envelope has a checksum
        damaged = bytearray(payload)
        if damaged:
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            decoded = codec.decode(bytes(damaged), num_params)
        except CodecError:
            continue
        _require(decoded.shape == (num_params,) and bool(np.isfinite(decoded).all()), "what is decoded is finite")


def _filled(num_params: int) -> Accumulator:
    accumulator = Accumulator(num_params)
    accumulator.add_f32(np.full(num_params, 0.25, "<f4").tobytes(), 3)
    return accumulator


def _check_refusal(codec: Codec, payload: bytes, num_params: int, weight: int, what: str) -> None:
    try:
        codec.decode(payload, num_params)
    except CodecError:
        pass
    else:
        raise BrokenLaw(f"{codec.name}: {what} must be refused by decode")
    accumulator = _filled(num_params)
    with _unchanged(accumulator, what):
        codec.accumulate(payload, weight, accumulator)


@contextmanager
def _unchanged(accumulator: Accumulator, what: str) -> Iterator[None]:
    """The block raises CodecError and leaves the accumulator's bits as they are."""
    before = accumulator.to_bytes()
    try:
        yield
    except CodecError:
        _require(accumulator.to_bytes() == before, f"refusing {what} leaves the accumulator's bits as they were")
    else:
        raise BrokenLaw(f"{what} must be refused with CodecError")


def _check_what_can_not_be_encoded(codec: Codec) -> None:
    for bad in (np.array([1, np.nan], np.float32), np.array([np.inf], np.float32), np.zeros((2, 2), np.float32)):
        try:
            codec.encode(bad)
        except CodecError:
            continue
        raise BrokenLaw(f"{codec.name}: a delta with {bad.ravel()[-1]}, of shape {bad.shape}, must be refused")


def _check_tensors(codec: Codec) -> None:
    """`for_tensors` changes nothing in the codec itself, and what it returns decodes what it encodes."""
    tensors = [Param("w", [20, 30]), Param("b", [30]), Param("seen", [10], False)]
    delta = np.random.default_rng(3).normal(size=640).astype(np.float32)
    before = _encoded(codec, delta)
    told = codec.for_tensors(tensors)
    _require(_encoded(codec, delta) == before, "for_tensors leaves the codec itself as it was")
    payload = _encoded(told, delta)
    if payload is not None:
        _check_sum(told, payload, told.decode(payload, 640))
        _check_damage(told, payload, 640)


def check_strategy(make: Callable[[], Strategy]) -> None:
    """Order does not matter; a round leaves no trace unless it finishes; state is complete; params stay as they are."""
    if isinstance(make, Strategy) or not callable(make):
        raise UsageError(f"make is {make!r}: give a function that makes the strategy anew")
    _check_order(make)
    _check_abandoned_rounds(make)
    _check_refusals(make)
    _check_state(make)


P = 50
RAW32 = codecs.get("raw32")


@dataclass(frozen=True)
class _Train:
    lr: float = 0.1


def _made(make: Callable[[], Strategy]) -> Strategy:
    """A strategy as a host gets it ready; the last 5 params are statistics that only training measures."""
    strategy = make()
    _require(isinstance(strategy, Strategy), "a strategy derives from edgefl.strategies.Strategy")
    _require(isinstance(strategy.name, str) and bool(strategy.name), "a strategy has a name")
    dict(strategy.defaults(_Train()))
    strategy.prepare(Site(P, P - 5, reports=7, spill_bytes=64 * 4 * P))
    return strategy


def _updates(seed: int) -> list[Update]:
    """Five devices' updates, one of them late, and another one late in the same round."""
    rng = np.random.default_rng(seed)
    out = []
    for device, num_examples, staleness in (("a", 1, 0), ("b", 600, 0), ("c", 37, 2), ("d", 5, 0), ("b", 600, 1)):
        out.append(Update(device, num_examples, RAW32, RAW32.encode(_delta(rng)), staleness))
    return out


def _delta(rng: np.random.Generator) -> np.ndarray:
    return (np.rint(rng.normal(0, 0.1, P) * SCALE) / SCALE).astype(np.float32)


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
    _require(result.dtype == np.float32 and result.shape == (P,), "finish gives (P,) float32")
    _require(bool(np.isfinite(result).all()), "finish gives finite numbers")
    _require(params.tobytes() == before, "the params of the round's start stay as they are")
    model: np.ndarray = result.copy()
    model.flags.writeable = False
    return model


def _run(strategy: Strategy, params: np.ndarray, rounds: range) -> np.ndarray:
    for number in rounds:
        params = _round(strategy, params, number, _updates(number))
    return params


def _bits(state: State) -> dict[str, tuple[str, bytes]]:
    return {key: (f"{array.dtype}{array.shape}", array.tobytes()) for key, array in state.items()}


def _check_order(make: Callable[[], Strategy]) -> None:
    updates, params = _updates(1), _start_params()
    expected = _round(_made(make), params, 1, updates)
    for order in list(permutations(range(len(updates))))[1::7]:
        again = _round(_made(make), params, 1, [updates[place] for place in order])
        _require(again.tobytes() == expected.tobytes(), "the order of the updates changes no bit")


def _check_abandoned_rounds(make: Callable[[], Strategy]) -> None:
    """After a round that never finished, in the first round and later."""
    for earlier in (range(1, 1), range(1, 3)):
        disturbed, plain = _made(make), _made(make)
        params = _run(disturbed, _start_params(), earlier)
        _run(plain, _start_params(), earlier)
        before = _bits(disturbed.state())
        disturbed.start(params, 8)
        for update in _updates(99):
            disturbed.add(update)
        _require(_bits(disturbed.state()) == before, "only finish changes the state")
        one, other = (_round(strategy, params, 9, _updates(9)) for strategy in (disturbed, plain))
        _require(one.tobytes() == other.tobytes(), "a round that was abandoned leaves nothing behind")


def _check_refusals(make: Callable[[], Strategy]) -> None:
    updates, params = _updates(1), _start_params()
    expected = _round(_made(make), params, 1, updates)
    good = updates[0].payload
    bad = [
        Update("x", 0, RAW32, good),
        Update("x", 2**32 + 1, RAW32, good),
        Update("x", 1, RAW32, good[:-1]),
        Update("x", 1, RAW32, np.full(P, np.nan, "<f4").tobytes()),
    ]
    strategy = _made(make)
    strategy.start(params, 1)
    for update in [*bad, *updates, *bad]:
        try:
            strategy.add(update)
        except CodecError:
            _require(update in bad, "a good update is taken")
        else:
            _require(update not in bad, f"an update of {update.num_examples} examples must be refused with CodecError")
    _require(strategy.finish().tobytes() == expected.tobytes(), "an update that is refused changes no bit")


def _check_state(make: Callable[[], Strategy]) -> None:
    """A strategy that gets the state of another goes on as that one, and what `state` returned never changes."""
    whole, kept = _made(make), []
    params = _start_params()
    for number in range(1, 4):
        params = _round(whole, params, number, _updates(number))
        kept.append((params, whole.state(), _bits(whole.state())))
    _require(all(_bits(state) == bits for _, state, bits in kept), "an array that state() returned stays as it is")
    for number, (then, state, _) in enumerate(kept, start=1):
        again = _made(make)
        again.restore({key: array.copy() for key, array in state.items()})
        _require(_bits(again.state()) == _bits(state), "restore takes what state gave")
        result = _run(again, then, range(number + 1, 4))
        _require(result.tobytes() == params.tobytes(), "a restored strategy goes on bit for bit")
        _require(_bits(again.state()) == kept[-1][2], "a restored strategy ends in the same state")
    whole.restore(kept[0][1])
    result = _run(whole, kept[0][0], range(2, 4))
    _require(result.tobytes() == params.tobytes(), "restore also takes a strategy back")


def _require(holds: bool, law: str) -> None:
    if not holds:
        raise BrokenLaw(law)
