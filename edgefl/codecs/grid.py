"""grid: models rounded to whole multiples of a step, tensor by tensor, and written without loss.

    CRC-32C u32 of the rest | an exponent i8 for each tensor, OFF: it lies on no grid
    | length u32 of the first part | the tensors on grids, in their steps, by `ecq` in steps of 1
    | the others, by `planes`

A step is a power of two, and a tensor has few steps: so sums and differences of models are exact in float32. From
whichever version a device comes, by a difference or by a whole model, it gets the same bits, and a tensor's numbers
take as many bits as their steps need: three to five for a whole model, half to two for a difference. Devices that are
drawn now and then mostly fetch whole models, or differences over many versions; a codec whose every difference is
inexact has to write these whole models in all 27 bits that its errors fill.

What rounding takes is at most half a step. It is no loss that adds up: the aggregator's own params stay exact, and each
version is rounded anew.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from msgspec.structs import replace

from .. import _core
from ..core.accumulator import Accumulator
from ..core.plan import Param
from ..errors import CodecError, UsageError
from .base import Codec
from .ecq import Ecq
from .planes import Planes

OFF = -128  # the exponent of a tensor that lies on no grid
EXPONENTS = range(-120, 61)  # of steps
LARGEST = 2**23  # steps of a number: sums of two are exact in float32
SMALL = 127  # steps that are one symbol; larger numbers take 32 bits more
FEW = 8  # at most one number in so many may be larger
STEP = 0.8  # of a matrix, in root mean squares of its numbers
FIRST = 16.0  # steps of a first model are finer by so much: nobody knows yet how far training moves it
MOVED = 8.0  # a step has at most so many root mean squares of what a tensor has moved by since the last anchor
VECTOR = 16.0  # vectors have few numbers, and steps that are finer by so much
_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<I")


class Grid(Codec):
    """For models on their way down. `step`: of a matrix, in root mean squares of its numbers."""

    name = "grid"
    wire_id = 11
    lossless = True
    rounds = True

    def __init__(self, step: float | None = None, max_bytes: int | None = None) -> None:
        super().__init__(max_bytes)
        if step is not None and not (isinstance(step, int | float) and 0 < step <= 4):
            raise UsageError(f"{self.name}: step is {step!r}: give a number above 0, at most 4")
        self.step = STEP if step is None else step

    # Rounding

    def rounded(self, model: np.ndarray) -> np.ndarray:
        """`model` (P,) float32 on fine grids, but for what SGD does not move."""
        out: np.ndarray = self._check_delta(model).copy()
        for tensor, run in self._runs(len(model)):
            if tensor.trainable:
                out[run] = _on_grid(model[run], self._wanted(tensor, model[run]) - _log2(FIRST))
        return out

    def encode_model(self, model: np.ndarray, fresh: np.ndarray, shown: np.ndarray) -> bytes:
        """The difference from `shown` to `model` on grids. A tensor that has not moved stays as it is shown; what SGD
        does not move changes by float16 numbers, whose errors are in the next difference."""
        model, difference = self._check_delta(model), np.zeros(len(model), np.float32)
        for tensor, run in self._runs(len(model)):
            if not tensor.trainable:
                difference[run] = _float16(model[run], shown[run])
            elif fresh[run].any():
                wanted = min(self._wanted(tensor, model[run]), _log2(MOVED * _core.rms(fresh[run])))
                difference[run] = _moved(model[run], wanted, shown[run], by_halves=len(tensor.shape) > 1)
        return self.encode(difference)

    def _wanted(self, tensor: Param, numbers: np.ndarray) -> float:
        """Log2 of the step that a tensor's numbers ask for."""
        return _log2(self.step / (VECTOR if len(tensor.shape) < 2 else 1) * _core.rms(numbers))

    # The wire

    def bound(self, num_params: int) -> int:
        return _CRC.size + len(self._tensors(num_params)) + _LENGTH.size + Planes().bound(num_params) + _CRC.size + 1

    def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
        delta = self._check_delta(delta)
        exponents = [_exponent(delta[run]) for _, run in self._runs(len(delta))]
        rest = self._write(delta, exponents)
        if len(rest) + _CRC.size > self.bound(len(delta)):
            rest = self._write(delta, [OFF] * len(exponents))
        self._check_budget(_CRC.size + len(rest))
        return _CRC.pack(_core.crc32c(rest)) + rest

    def _write(self, delta: np.ndarray, exponents: Sequence[int]) -> bytes:
        on, off, coder = self._parts(exponents, len(delta))
        steps = _gather([np.ldexp(delta[run], -exponent) for run, exponent in on])
        first = coder.encode(steps, 1.0)
        others = Planes().encode(_gather([delta[run] for run in off]))
        return b"".join((struct.pack(f"{len(exponents)}b", *exponents), _LENGTH.pack(len(first)), first, others))

    def decode(self, payload: bytes | memoryview, num_params: int) -> np.ndarray:
        view, count = self._bytes_of(payload), len(self._tensors(num_params))
        head = _CRC.size + count + _LENGTH.size
        if len(view) < head or _core.crc32c(view[_CRC.size :]) != _CRC.unpack_from(view)[0]:
            raise CodecError(f"{self.name}: payload fails its CRC32C: dropped")
        exponents = struct.unpack_from(f"{count}b", view, _CRC.size)
        if any(exponent != OFF and exponent not in EXPONENTS for exponent in exponents):
            raise CodecError(f"{self.name}: a step is out of bounds: dropped")
        middle = head + _LENGTH.unpack_from(view, _CRC.size + count)[0]
        on, off, coder = self._parts(exponents, num_params)
        out = np.zeros(num_params, np.float32)
        steps = coder.decode(view[head:middle], sum(run.stop - run.start for run, _ in on))
        others = Planes().decode(view[middle:], sum(run.stop - run.start for run in off))
        with np.errstate(over="ignore"):  # a hostile payload's; it is refused below
            for (run, exponent), numbers in zip(on, _cut(steps, [run for run, _ in on]), strict=True):
                np.ldexp(numbers + np.float32(0), exponent, out=out[run])  # a symbol may stand for -0
        for run, numbers in zip(off, _cut(others, off), strict=True):
            out[run] = numbers
        return self._check_decoded(out)

    def accumulate(self, payload: bytes | memoryview, weight: int, accumulator: Accumulator) -> None:
        decoded = self.decode(payload, len(accumulator.acc))
        accumulator.add_f32(decoded.astype("<f4", copy=False).tobytes(), weight)

    def _parts(self, exponents: Sequence[int], num_params: int) -> tuple[list[tuple[slice, int]], list[slice], Codec]:
        """The tensors on grids with their exponents, the others, and the codec of the former."""
        on, off, tensors = [], [], []
        for (tensor, run), exponent in zip(self._runs(num_params), exponents, strict=True):
            if exponent == OFF:
                off.append(run)
            else:
                on.append((run, exponent))
                tensors.append(replace(tensor, trainable=True))
        return on, off, Ecq(step=1.0, exact="none").for_tensors(tensors)

    def _tensors(self, num_params: int) -> Sequence[Param]:
        return self.tensors or ([Param("", [num_params])] if num_params else [])

    def _runs(self, num_params: int) -> Iterator[tuple[Param, slice]]:
        tensors, at = self._tensors(num_params), 0
        if sum(tensor.size for tensor in tensors) != num_params:
            raise CodecError(f"{num_params} params are not those of the plan: it is for another model")
        for tensor in tensors:
            yield tensor, slice(at, at + tensor.size)
            at += tensor.size


def _log2(number: float) -> float:
    return float(np.log2(number)) if number > 0 else -np.inf


def _moved(numbers: np.ndarray, wanted: float, shown: np.ndarray, by_halves: bool) -> np.ndarray:
    """`numbers` on a grid near 2^`wanted`, minus `shown`. The step of `shown` stays where it is less than a factor of
    two from that: a step that changes, changes each number. It becomes finer `by_halves`, each of which takes a bit a
    number, or at once."""
    exponent, near = _exponent(shown), wanted
    if exponent != OFF and shown.any():
        near = exponent if abs(wanted - exponent) < 1 else max(wanted, exponent - 1) if by_halves else wanted
    difference: np.ndarray = _on_grid(numbers, near) - shown
    if near > wanted and not difference.any():  # as ones do, they lie on a far coarser grid: halves lead nowhere
        difference = _on_grid(numbers, wanted) - shown
    return difference


def _on_grid(numbers: np.ndarray, wanted: float) -> np.ndarray:
    """`numbers`, each the nearest multiple of about 2^`wanted`, ties to even; a step that is so fine that a number had
    too many is coarser."""
    largest = float(np.abs(numbers).max(initial=0))
    if not largest:
        return np.zeros_like(numbers)  # no -0
    finest = np.frexp(largest)[1] - (LARGEST.bit_length() - 1)
    exponent = int(min(max(round(max(wanted, -999.0)), finest, EXPONENTS[0]), EXPONENTS[-1]))
    steps = np.rint(np.ldexp(numbers, -exponent)) + np.float32(0)
    rounded: np.ndarray = np.ldexp(steps, exponent)
    return rounded


def _exponent(numbers: np.ndarray) -> int:
    """That of the largest step that all `numbers` are multiples of, 0 if all are 0; OFF where they take more bits as
    such than as they are."""
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    found = bits[bits != 0]
    if not len(found):
        return 0
    fields = (found >> np.uint32(23) & np.uint32(255)).astype(np.int32)
    if not fields.all():  # -0, or smaller than a float32 has all its digits for
        return OFF
    digits = (found & np.uint32(0x7FFFFF) | np.uint32(0x800000)).astype(np.int32)
    last = np.frexp((digits & -digits).astype(np.float32))[1] - 1
    exponent = int((fields - 150 + last).min())
    if exponent not in EXPONENTS or np.ldexp(float(np.abs(numbers).max()), -exponent) > LARGEST:
        return OFF
    large = np.count_nonzero(np.abs(numbers) > np.ldexp(np.float32(SMALL), exponent))
    return OFF if FEW * large > len(numbers) + FEW else exponent


def _float16(numbers: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """`numbers` - `shown` with float16's digits, but where it can't hold one, or another sign would come of it: batch
    normalization takes the root of a running variance."""
    exact = numbers - shown
    with np.errstate(over="ignore"):
        short = exact.astype(np.float16).astype(np.float32)
    after = shown + short
    fits = np.isfinite(short) & ((after == 0) | (np.sign(after) == np.sign(numbers)))
    chosen: np.ndarray = np.where(fits, short, exact)
    return chosen


def _gather(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _cut(vector: np.ndarray, runs: list[slice]) -> list[np.ndarray]:
    ends = np.cumsum([run.stop - run.start for run in runs])
    return np.split(vector, ends[:-1]) if runs else []
