"""Model: an ONNX file, the plan compiled from it, and its params. `edgefl.load` makes one.

Only the aggregator's side and the simulator use it: reading and writing ONNX needs the extra `aggregator`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import ModelError
from .plan import Plan

if TYPE_CHECKING:
    import onnx

    from .onnx_export import Binding, Origin

LARGEST_FILE = 2**31 - 1  # protobuf's limit for one message


@dataclass(frozen=True, eq=False)
class Model:
    """A trainable ONNX model. `onnx_import.import_onnx` makes one."""

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

    def __post_init__(self) -> None:
        self.params.flags.writeable = False

    @property
    def state(self) -> np.ndarray:
        """The untrained tail of `params`, a view: (P - trainable,) float32."""
        return self.params[self.plan.num_trainable :]

    def to_bytes(self, params: np.ndarray | None = None) -> bytes:
        """The same ONNX file with `params` (P,) in it; None leaves every byte as it was. Raises ModelError."""
        if params is None:
            return self.source
        from .onnx_export import write_params

        after = np.ascontiguousarray(params, np.float32)
        if after.shape != self.params.shape:
            raise ModelError(
                f"params have shape {after.shape}, the model {self.params.shape}: pass params of this model's plan"
            )
        if not np.isfinite(after).all():
            raise ModelError("params hold NaN or Inf and would spoil the model: train with a lower lr")
        names = [param.name for param in self.plan.params]
        return write_params(self.source, self.origins, self.bindings, names, self.params, after)

    def save(self, path: str | os.PathLike[str], params: np.ndarray | None = None) -> None:
        """Writes `to_bytes(params)` to `path`, atomically and durably. Raises ModelError."""
        data = self.to_bytes(params)
        try:
            _write_atomically(Path(path), data)
        except OSError as error:
            raise ModelError(f"can't save {path}: {error.strerror}; check the folder and its space") from None


def load(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto,
    loss: str | None = None,
    *,
    freeze: Sequence[str] = (),
    dims: Mapping[str, int] | None = None,
) -> Model:
    """Reads an ONNX model from a path, bytes or a ModelProto.

    `loss` is one of `plan.LOSSES`; None infers it: a trailing Softmax means cross_entropy, Sigmoid bce; without
    either, one output or the shape of the input mean mse, anything else cross_entropy on logits.
    `freeze` names initializers that are not to be trained: by name, glob ("conv*") or the start of a name up to a dot
    or slash ("conv1" for conv1.weight). They become state; what lies before the first trained one costs no backward
    pass, and a frozen BatchNormalization keeps its running statistics and computes with them.
    `dims` gives sizes to axes of the input that the file leaves open, beside that of the samples: {"time": 80}.
    Raises ModelError for what can't be trained, UsageError for an option that does not fit.
    """
    try:
        from .onnx_import import import_onnx
    except ImportError as error:
        raise ModelError(f"can't read ONNX files ({error}): install edgefl-toolkit[aggregator]") from None
    if isinstance(source, str | os.PathLike):
        where = f"{os.fspath(source)}: "
        data = _read(Path(source))
    else:
        where, data = "", source if isinstance(source, bytes) else source.SerializeToString()
    try:
        return import_onnx(data, loss, list(freeze), dict(dims or {}))
    except ModelError as error:
        raise ModelError(f"{where}{error}") from error.__cause__


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelError(f"{path} is larger than 2 GB: no ONNX file in one piece is; check the path")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror}; check the path") from None


def _write_atomically(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)
