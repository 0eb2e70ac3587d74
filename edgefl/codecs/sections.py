"""Which coordinates of a delta a lossy codec quantizes, and which it keeps: biases, norms, running statistics.

These are few, and much depends on them. They are written as float16, or float32 where float16 can't hold one. What a
running statistic has shrunk by is rounded down: a variance that has come near 0 would else fall below it, where batch
normalization has no square root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..core.plan import Param
from ..errors import CodecError, UsageError
from .reader import Reader

EXACT = ("vectors", "none")
LARGEST_F16 = 65504.0


class Sections:
    """A vector of `num_params` coordinates in three sets of runs (slices), by tensor:

        coded   quantized: trained matrices; trained vectors too if `exact` is "none"
        kept    float16 or float32: vectors that are not coded
        still   not written: frozen matrices, which never move

    A vector is a tensor of one axis or none. State vectors are kept with either `exact`: SGD does not move them, and a
    running variance quantized at a coarse step would fall below zero, where batch normalization has no square root.
    Without tensors, all coordinates are coded. CodecError if `tensors` do not have `num_params` coordinates.

    `measured` (num_kept,) bool: which of the kept ones are statistics, which training does not move.

    `matrices` are the (rows, columns) of the coded tensors, columns along the last axis, `shapes` (M, 2) the same
    numbers, and `starts` (M,) where they begin.
    """

    def __init__(self, tensors: Sequence[Param], exact: str, num_params: int) -> None:
        if tensors and sum(t.size for t in tensors) != num_params:
            raise CodecError(f"{num_params} params are not those of the plan: it is for another model")
        self.num_params = num_params
        self.coded: list[slice] = []
        self.kept: list[slice] = []
        self.still: list[slice] = []
        self.matrices: list[tuple[int, int]] = []
        at, starts, measured = 0, list[int](), [np.zeros(0, bool)]
        for tensor in tensors:
            runs = self._of(tensor, exact)
            self._append(runs, at, at + tensor.size)
            if runs is self.coded:
                columns = tensor.shape[-1] if tensor.shape else 1
                self.matrices.append((tensor.size // columns, columns))
                starts.append(at)
            elif runs is self.kept:
                measured.append(np.full(tensor.size, not tensor.trainable))
            at += tensor.size
        self.measured = np.concatenate(measured)
        self.shapes, self.starts = np.array(self.matrices, np.int64).reshape(-1, 2), np.array(starts, np.int64)
        if not tensors and num_params:
            self.coded.append(slice(0, num_params))
        self.num_coded = sum(s.stop - s.start for s in self.coded)
        self.num_kept = sum(s.stop - s.start for s in self.kept)

    def _of(self, tensor: Param, exact: str) -> list[slice]:
        """The set that a tensor belongs to."""
        if len(tensor.shape) < 2:
            return self.kept if exact == "vectors" or not tensor.trainable else self.coded
        return self.coded if tensor.trainable else self.still

    @staticmethod
    def _append(runs: list[slice], start: int, stop: int) -> None:
        if runs and runs[-1].stop == start:
            runs[-1] = slice(runs[-1].start, stop)
        else:
            runs.append(slice(start, stop))

    def gather(self, vector: np.ndarray, runs: list[slice]) -> np.ndarray:
        """The runs of `vector`, one after another; `vector` itself if one run covers it."""
        if len(runs) == 1 and runs[0] == slice(0, len(vector)):
            return vector
        return np.concatenate([vector[run] for run in runs]) if runs else np.zeros(0, np.float32)

    def scatter(self, kept: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """The inverse of gathering `kept` coordinates: each run, and its values."""
        at = 0
        for run in self.kept:
            size = run.stop - run.start
            yield run, kept[at : at + size]
            at += size

    def pieces(self, start: int, stop: int) -> list[tuple[slice, slice]]:
        """Coded coordinates start..stop, run by run: (slice of start..stop, slice of the vector)."""
        out, before = [], 0
        for run in self.coded:
            first, last = max(start - before, 0), min(stop - before, run.stop - run.start)
            if first < last:
                inside = slice(before + first - start, before + last - start)
                out.append((inside, slice(run.start + first, run.start + last)))
            before += run.stop - run.start
        return out


def check_exact(exact: str) -> str:
    """`exact` itself; UsageError if it is not in EXACT."""
    if exact not in EXACT:
        raise UsageError(f"exact is {exact!r}: choose one of {', '.join(EXACT)}")
    return exact


def kept_to_bytes(values: np.ndarray, measured: np.ndarray) -> tuple[bytes, bool]:
    """`values` as little-endian float16, or as float32 if one is too large for that; and whether they are float32. Of
    float16, negative ones that are `measured` are the nearest that are no lower."""
    if np.abs(values).max(initial=0) > LARGEST_F16:
        return values.astype("<f4").tobytes(), True
    short = values.astype(np.float16)
    lower = measured & (values < 0) & (short < values)
    short[lower] = np.nextafter(short[lower], np.float16(0))
    return short.astype("<f2", copy=False).tobytes(), False


def read_kept(reader: Reader, wide: bool, count: int) -> np.ndarray:
    """The `count` float32 values that `kept_to_bytes` wrote; CodecError if they are cut off or not finite."""
    data = reader.take(count * (4 if wide else 2))
    return finite(np.frombuffer(data, "<f4" if wide else "<f2").astype(np.float32, copy=False))


def finite(values: np.ndarray) -> np.ndarray:
    """`values` themselves; CodecError if one is not finite."""
    if not np.isfinite(values).all():
        raise CodecError("payload with NaN or infinity: its training diverged, lower the learning rate", "finite")
    return values
