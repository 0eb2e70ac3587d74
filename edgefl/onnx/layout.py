"""Where the plan keeps the elements of a tensor of the ONNX graph.

The plan's images are channels last, those of ONNX are channels first, and exporters transpose, flatten and squeeze.
None of this moves data here: a Layout says, for each axis of the ONNX tensor, with which strides to step through the
plan's memory. An op that needs its input in another order asks arrange.py for it.

An axis is a product of factors, the outermost first: channels, height and width flattened into one axis are its three
factors. The samples are a factor too, wherever exporters put them: alone in the first axis, behind the time steps of a
recurrent net, or in one axis with the heads of an attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

# Stands for the number of samples if the file leaves it open. It is a prime and larger than any dim of a plan, so it is
# recognized in every product that the graph makes with it.
OPEN = 2**31 - 1


class Factor(NamedTuple):
    """`size` steps of `stride` elements in a sample's memory; stride 0: the samples themselves."""

    size: int
    stride: int


Axis = tuple[Factor, ...]


@dataclass(frozen=True)
class Layout:
    """The axes of an ONNX tensor. One factor is the samples; the others step through each element of a sample once. A
    file for a single sample may have none: then `samples` is -1 (single.py)."""

    axes: tuple[Axis, ...]

    def __str__(self) -> str:
        return readable(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in ONNX, including the number of samples."""
        return tuple(prod(factor.size for factor in axis) for axis in self.axes)

    @property
    def samples(self) -> int:
        """The axis that the samples are in; -1 if they have no factor."""
        return next((at for at, axis in enumerate(self.axes) if any(not factor.stride for factor in axis)), -1)

    @property
    def inner(self) -> tuple[int, ...]:
        """The axes that a sample has: all, without an axis that holds samples alone."""
        alone = self.samples if self.samples >= 0 and len(self.axes[self.samples]) == 1 else None
        return tuple(at for at in range(len(self.axes)) if at != alone)

    @property
    def leads(self) -> bool:
        """Whether the samples are the first axis and alone in it."""
        return self.samples == 0 and len(self.axes[0]) == 1

    def led(self) -> Layout | None:
        """With the samples in an axis of their own, the first: moved there, or taken off the first axis if they are the
        outermost in it. None if they stand between other numbers."""
        at = self.samples
        if len(self.axes[at]) == 1:
            return self.transposed([at, *(axis for axis in range(len(self.axes)) if axis != at)])
        first, *rest = self.axes[0]
        return None if at or first.stride else Layout(((first,), tuple(rest), *self.axes[1:]))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.size(axis) for axis in self.inner)

    @property
    def mixture(self) -> tuple[int, int, int]:
        """Where the samples are, counted from the last axis. Two tensors with equal mixtures can be combined sample by
        sample."""
        if self.samples < 0:
            return 0, 1, 1
        axis = self.axes[self.samples]
        sizes, at = [factor.size for factor in axis], [factor.stride for factor in axis].index(0)
        return len(self.axes) - self.samples, prod(sizes[:at]), prod(sizes[at + 1 :])

    def homed(self, axis: int) -> Layout:
        """A single sample that has no axis put into `axis`, if this is one of size 1."""
        if self.samples >= 0 or axis >= len(self.axes) or self.axes[axis]:
            return self
        return Layout((*self.axes[:axis], (Factor(1, 0),), *self.axes[axis + 1 :]))

    def released(self) -> Layout:
        """A single sample without its axis."""
        return Layout(tuple(tuple(factor for factor in axis if factor.stride) for axis in self.axes))

    def size(self, axis: int) -> int:
        """How much of a sample lies along `axis`."""
        return prod(factor.size for factor in self.axes[axis] if factor.stride)

    def factors(self, order: Iterable[int]) -> Axis:
        """The steps through a sample's elements with the axes in `order`, in as few factors as possible."""
        return tuple(_merged(factor for axis in order for factor in self.axes[axis] if factor.stride))

    def transposed(self, order: Sequence[int]) -> Layout:
        return Layout(tuple(self.axes[axis] for axis in order))

    def squeezed(self, axes: Sequence[int]) -> Layout:
        return Layout(tuple(axis for at, axis in enumerate(self.axes) if at not in axes))

    def unsqueezed(self, axes: Sequence[int]) -> Layout:
        old = iter(self.axes)
        return Layout(tuple(() if at in axes else next(old) for at in range(len(self.axes) + len(axes))))

    def packed(self, order: Sequence[int], sizes: dict[int, int]) -> Layout:
        """The same axes over new memory, which has the axes in `order`, the outermost first, with these `sizes`."""
        strides, stride = {}, 1
        for at in reversed(order):
            strides[at] = stride
            stride *= sizes[at]
        axes = []
        for at, axis in enumerate(self.axes):
            own = (Factor(sizes[at], strides[at]),) if at in strides and sizes[at] > 1 else ()
            samples = tuple(factor for factor in axis if not factor.stride)
            axes.append(own + samples if axis and axis[0].stride else samples + own)
        return Layout(tuple(axes))

    def resized(self, axis: int, old: int, new: int) -> Layout:
        """The layout after `axis`, the innermost, has changed from `old` elements to `new`."""
        scaled = [tuple(Factor(size, stride // old * new) for size, stride in each) for each in self.axes]
        scaled[axis] = (Factor(new, 1),) if new > 1 else ()
        return Layout(tuple(scaled))

    def reshaped(self, shape: Sequence[int]) -> Layout | None:
        """The same memory as `shape`, or None if the shape needs another order or splits the samples."""
        pending = _merged(factor for axis in self.axes for factor in axis)[::-1]
        axes = []
        for size in shape:
            taken: list[Factor] = []
            # A file that fixes one sample leaves open which axis holds it: the first free one.
            while pending and (size > 1 or (pending[-1] == (1, 0) and not taken)):
                whole, stride = pending[-1]
                if size % whole == 0:
                    taken.append(pending.pop())
                    size //= whole
                elif stride and whole % size == 0:
                    taken.append(Factor(size, stride * (whole // size)))
                    pending[-1] = Factor(whole // size, stride)
                    size = 1
                else:
                    return None
            if size != 1:
                return None
            axes.append(tuple(taken))
        return None if pending else Layout(_freed(axes))


def fresh(sizes: Sequence[int | None], samples: int, order: Sequence[int] | None = None) -> Layout:
    """The layout of a new tensor. A size of None marks the axis of the `samples`; `order` is that of the other axes
    in memory."""
    bare = Layout(tuple((Factor(samples, 0),) if size is None else () for size in sizes))
    order = [at for at, size in enumerate(sizes) if size is not None] if order is None else order
    return bare.packed(order, {at: size for at, size in enumerate(sizes) if size is not None})


def readable(shape: Sequence[int]) -> str:
    """N stands for the number of samples, if the file leaves it open."""
    words = ["N" if size == OPEN else f"{size // OPEN}N" if size % OPEN == 0 else str(size) for size in shape]
    return f"({', '.join(words)})"


def positions(factors: Axis) -> np.ndarray:
    """(n,) the positions that `factors` step through."""
    where = np.zeros(1, np.int64)
    for size, stride in factors:
        where = np.add.outer(where, stride * np.arange(size)).ravel()
    return where


def _merged(factors: Iterable[Factor]) -> list[Factor]:
    merged: list[Factor] = []
    for factor in factors:
        if factor.stride and factor.size == 1:
            continue
        if merged and factor.stride and merged[-1].stride == factor.size * factor.stride:
            factor = Factor(merged.pop().size * factor.size, factor.stride)
        merged.append(factor)
    return merged


def _freed(axes: list[Axis]) -> tuple[Axis, ...]:
    """The axes with a single sample that shares its axis moved into the first empty axis."""
    single = Factor(1, 0)
    for at, axis in enumerate(axes):
        if single in axis and len(axis) > 1 and () in axes:
            axes[axes.index(())] = (single,)
            axes[at] = tuple(factor for factor in axis if factor != single)
            break
    return tuple(axes)
