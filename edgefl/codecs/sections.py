"""Which coordinates of a delta a lossy codec squeezes, and which it keeps: biases, norms, running statistics.

Few coordinates, on which much depends; they go as float16, or float32 where that can't hold them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..core.plan import Param
from ..errors import CodecError, UsageError

EXACT = ("vectors", "none")
LARGEST_F16 = 65504.0


class Sections:
    """The runs of a vector of `num_params` that are squeezed, `coded`, those that are kept, `kept`, and those that stay
    as they are, `still`: slices.

    `exact` says what is kept of `tensors`: "vectors", those of one axis, or "none" of them. State of one axis, which
    SGD does not move, is kept in either case: a running variance that went by coarse steps would fall below zero, and
    batch normalization has no root of that. Frozen matrices never move. Without tensors all is squeezed. CodecError if
    they are of another model.
    """

    def __init__(self, tensors: Sequence[Param], exact: str, num_params: int) -> None:
        if tensors and sum(t.size for t in tensors) != num_params:
            raise CodecError(f"{num_params} params are not those of the plan: it is for another model")
        self.coded: list[slice] = []
        self.kept: list[slice] = []
        self.still: list[slice] = []
        self.matrices: list[tuple[int, int]] = []  # of what is squeezed: rows, and columns along the last axis
        at = 0
        for tensor in tensors:
            runs = self._of(tensor, exact)
            self._append(runs, at, at + tensor.size)
            if runs is self.coded:
                columns = tensor.shape[-1] if tensor.shape else 1
                self.matrices.append((tensor.size // columns, columns))
            at += tensor.size
        if not tensors and num_params:
            self.coded.append(slice(0, num_params))
        self.num_coded = sum(s.stop - s.start for s in self.coded)
        self.num_kept = sum(s.stop - s.start for s in self.kept)

    def _of(self, tensor: Param, exact: str) -> list[slice]:
        """Where a tensor belongs."""
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
        """The runs of `vector`, one after another; itself where that is all of it."""
        if len(runs) == 1 and runs[0] == slice(0, len(vector)):
            return vector
        return np.concatenate([vector[run] for run in runs]) if runs else np.zeros(0, np.float32)

    def scatter(self, kept: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Where in the vector the `kept` coordinates lie, run by run."""
        at = 0
        for run in self.kept:
            size = run.stop - run.start
            yield run, kept[at : at + size]
            at += size

    def pieces(self, start: int, stop: int) -> list[tuple[slice, slice]]:
        """Where the squeezed coordinates start..stop lie: (in start..stop, in the vector) of each run they touch."""
        out, before = [], 0
        for run in self.coded:
            first, last = max(start - before, 0), min(stop - before, run.stop - run.start)
            if first < last:
                inside = slice(before + first - start, before + last - start)
                out.append((inside, slice(run.start + first, run.start + last)))
            before += run.stop - run.start
        return out


def check_exact(exact: str) -> str:
    """`exact` itself; UsageError if it is none of EXACT."""
    if exact not in EXACT:
        raise UsageError(f"exact is {exact!r}: choose one of {', '.join(EXACT)}")
    return exact


def kept_to_bytes(values: np.ndarray) -> tuple[bytes, bool]:
    """`values` as little-endian float16, or float32 where one is too large: True."""
    wide = bool(np.abs(values).max(initial=0) > LARGEST_F16)
    return values.astype("<f4" if wide else "<f2").tobytes(), wide


def kept_from_bytes(data: memoryview, wide: bool, count: int) -> np.ndarray:
    """The `count` float32 values that `kept_to_bytes` wrote; CodecError if they are cut off or not finite."""
    if len(data) != count * (4 if wide else 2):
        raise CodecError("payload ends within the coordinates that are kept: dropped")
    return finite(np.frombuffer(data, "<f4" if wide else "<f2").astype(np.float32, copy=False))


def finite(values: np.ndarray) -> np.ndarray:
    """`values` themselves; CodecError if one is not finite."""
    if not np.isfinite(values).all():
        raise CodecError("payload with NaN or infinity: its training diverged, lower the learning rate")
    return values
