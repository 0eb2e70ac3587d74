"""The laws of a codec. Whether a codec is any good is measured elsewhere: these say that it can be trusted."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..codecs import Codec
from ..core.accumulator import SCALE, Accumulator
from ..core.plan import Param
from ..errors import CodecError, UsageError
from .law import BrokenLaw, require

SIZES = (1, 2, 31, 1000)


def check_codec(codec: Codec) -> None:
    """Pure; bounded; decode and accumulate agree exactly; zeros stay zeros; a refusal leaves no trace."""
    if not isinstance(codec, Codec):
        raise UsageError(f"codec is {codec!r}: give an object of edgefl.codecs.Codec")
    for delta in _deltas():
        payload = _encoded(codec, delta)
        if payload is None:
            continue
        decoded = codec.decode(payload, len(delta))
        require(decoded.shape == delta.shape and decoded.dtype == np.float32, "decode gives (P,) float32")
        require(bool(np.isfinite(decoded).all()), "what is decoded is finite")
        require(not codec.lossless or decoded.tobytes() == delta.tobytes(), "a lossless codec gives the very bits")
        require(bool(delta.any()) or not decoded.any(), "a delta of zeros decodes to zeros")
        require(codec.decode(memoryview(payload), len(delta)).tobytes() == decoded.tobytes(), "a memoryview will do")
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
        require(codec.max_bytes is not None, f"without a budget, a finite delta can be encoded: {error}")
        return None
    require(isinstance(payload, bytes), "encode gives bytes")
    require(delta.tobytes() == before, "encode leaves its delta as it is")
    delta = delta.copy()
    delta.flags.writeable = False
    require(codec.encode(delta) == payload, "the same delta gives the same bytes")
    require(copy.copy(codec).encode(delta) == payload, "a copy of a codec gives the same bytes")
    require(len(payload) <= codec.bound(len(delta)), "no payload is longer than bound()")
    require(codec.max_bytes is None or len(payload) <= codec.max_bytes, "no payload is longer than max_bytes")
    return payload


def _check_sum(codec: Codec, payload: bytes, decoded: np.ndarray) -> None:
    """accumulate adds exactly weight times what decode gives, rounded to the accumulator's grid."""
    for weight in (1, 600):
        ours, expected = Accumulator(len(decoded)), Accumulator(len(decoded))
        ours.add_f32(np.ones(len(decoded), "<f4").tobytes(), 5)
        expected.merge(ours)
        codec.accumulate(payload, weight, ours)
        expected.add_f32(decoded.astype("<f4").tobytes(), weight)
        require(ours.acc.tobytes() == expected.acc.tobytes(), "accumulate adds the weight times what decode gives")
        require((ours.weight, ours.count) == (expected.weight, expected.count), "accumulate counts the update once")


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
        require(decoded.shape == (num_params,) and bool(np.isfinite(decoded).all()), "what is decoded is finite")


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
        require(accumulator.to_bytes() == before, f"refusing {what} leaves the accumulator's bits as they were")
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
    require(_encoded(codec, delta) == before, "for_tensors leaves the codec itself as it was")
    payload = _encoded(told, delta)
    if payload is not None:
        _check_sum(told, payload, told.decode(payload, 640))
        _check_damage(told, payload, 640)
