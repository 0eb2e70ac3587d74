"""Model: an ONNX file, the plan compiled from it, and its params. `edgefl.load` makes one.

Only the aggregator's side and the simulator use it: reading and writing ONNX needs the extra `aggregator`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..atomic import write_atomically
from ..core import targets
from ..core.plan import Plan
from ..errors import DataError, ModelError, UsageError, path_of

if TYPE_CHECKING:
    from .export import Binding, Origin


@dataclass(frozen=True, eq=False)
class Model:
    """A trainable ONNX model. `compiler.import_onnx` makes one."""

    source: bytes  # the file as it was
    plan: Plan
    params: np.ndarray  # (P,) float32, the file's own values in the plan's order; read-only
    bindings: list[Binding]  # of each param, in the plan's order
    origins: list[Origin]
    input_name: str
    input_dtype: np.dtype  # of the ONNX input
    batch: int | None  # samples a run, if the file fixes them
    output_names: list[str]  # of the ONNX graph, labels included
    output_tensor: str  # the tensor of the ONNX graph that `plan.output` computes
    output_shape: tuple[int, ...]  # of `plan.output`, per sample
    class_axis: int  # of the ONNX output, samples included, where the loss takes labels; else -1
    tail: str  # "softmax", "log_softmax" or "sigmoid" that the file ends in and the loss has taken over; else ""
    loss_inferred: bool  # False if the caller named the loss
    loss_why: str  # why it is this loss, in words
    freeze: tuple[str, ...] = ()  # what the caller named, as in `edgefl.load`
    dims: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.params.flags.writeable = False

    @property
    def state(self) -> np.ndarray:
        """The untrained tail of `params`, a view: (P - trainable,) float32."""
        return self.params[self.plan.num_trainable :]

    @property
    def loss_line(self) -> str:
        """What programs print at their start: the loss, and why it is this one."""
        return f"{self.plan.loss} ({'inferred: ' if self.loss_inferred else ''}{self.loss_why})"

    def check_targets(self, y: np.ndarray) -> None:
        """UsageError if y is labels and the loss takes numbers, or the other way round; with the remedy."""
        try:
            targets.check(self.plan.loss, self.output_shape, y)
        except DataError as error:
            text, what = error.safe, self.loss_why
            raise UsageError(f"{text} ({what}): {targets.remedy(error.code, self.plan.loss)}") from None

    def check_classes(self, labels: Sequence[str]) -> None:
        """UsageError if data have names for their labels, and not as many as the model tells apart."""
        try:
            if labels:
                targets.check_classes(self.output_shape, len(labels))
        except DataError as error:
            raise UsageError(str(error)) from None

    def to_bytes(self, params: np.ndarray | None = None) -> bytes:
        """The same ONNX file with `params` (P,) in it; None leaves every byte as it was. Raises ModelError."""
        if params is None:
            return self.source
        from .export import write_params

        try:
            after = np.ascontiguousarray(params, np.float32)
        except (TypeError, ValueError):
            raise UsageError(f"params is {params!r}: give (P,) float32 numbers") from None
        if after.shape != self.params.shape:
            raise ModelError(
                f"params have shape {after.shape}, the model {self.params.shape}: pass params of this model's plan"
            )
        if not np.isfinite(after).all():
            raise ModelError("params hold NaN or Inf and would spoil the model: train with a lower lr")
        names = [param.name for param in self.plan.params]
        return write_params(self.source, self.origins, self.bindings, names, before=self.params, after=after)

    def save(self, path: str | os.PathLike[str], params: np.ndarray | None = None) -> None:
        """Writes `to_bytes(params)` to `path`, atomically and durably. Raises ModelError."""
        where = path_of(path)
        data = self.to_bytes(params)
        try:
            write_atomically(where, data)
        except OSError as error:
            raise ModelError(f"can't save {path}: {error.strerror}; check the folder and its space") from None
