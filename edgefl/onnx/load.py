"""load: a trainable Model from an ONNX file, bytes or a ModelProto.

Imports without onnx, so that a machine which lacks it is told what to install.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..core.adapters import AdapterSettings
from ..errors import ModelError, UsageError, path_of
from .choices import Choices
from .losses import Given
from .model import Model
from .sites import Adapters

if TYPE_CHECKING:
    import onnx

LARGEST_FILE = 2**31 - 1  # protobuf's limit for one message


def load(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto,
    loss: Given = None,
    *,
    freeze: Sequence[str] = (),
    train: Sequence[str] = (),
    tie: Sequence[str] = (),
    untie: Sequence[str] = (),
    dims: Mapping[str, int] | None = None,
    constants: Mapping[str, ArrayLike] | None = None,
    y: ArrayLike | None = None,
    standardize: bool = False,
    adapters: AdapterSettings | Mapping[str, Any] | None = None,
    channels: Mapping[str, Sequence[int]] | None = None,
) -> Model:
    """Reads an ONNX model from a path, bytes or a ModelProto.

    `loss` is one of `plan.LOSSES`. None infers it: a trailing Softmax means cross_entropy and a trailing Sigmoid bce.
    Without either, targets `y`, if there are some, decide: labels for several outputs mean cross_entropy, numbers mse.
    Without those, a model with one output or with the shape of its input is trained on mse, any other on cross_entropy
    of logits. `Model.loss_why` says which of these it was. A dict trains several outputs at once, or the one that it
    names: {"digit": "cross_entropy", "age": ("mse", 0.1)} is the sum of the first mean and a tenth of the second
    (losses.py, which has a text for it too).
    `freeze` names initializers that are not trained: by name, by glob ("conv*"), or by the start of a name up to a dot
    or slash ("conv1" for conv1.weight). They become state. Layers before the first trained one need no backward pass. A
    frozen BatchNormalization keeps its running statistics and computes with them.
    `train` names what would else stay as it is (`Model.untrained` says what, and why): single numbers, a scaling of the
    input before the first weight, constants in the graph. It wins over `freeze`: freeze=["*"], train=["head"].
    A tensor that several nodes read is one param, but for fresh tensors and copied layers that an exporter has merged
    (onnx/sharing.py). `untie` names tensors that become a param for each reader, `tie` equal ones that become one.
    `dims` gives sizes to open axes of the input other than the samples: {"time": 80}.
    `constants` gives inputs that are the same for every sample a number, or an array that broadcasts to their shape:
    {"h0": 0}. They stay inputs of the file, and are no inputs of the plan. The initial state of a recurrent op is zeros
    without being told, where nothing else reads it (onnx/constants.py, `Model.constants`).
    `standardize` puts a scaling of the input's columns in front, which devices' data will set (docs/scaling.md).
    `adapters` puts small trained matrices beside frozen dense weights: settings such as {"rank": 8, "on": ["*attn*"]}
    (docs/adapters.md). A file that was saved with its adapters has them again without being told.
    `channels` names weights of which only some input channels are trained, {"conv3.weight": [0, 7, 12]}: those that
    `onnx.sparse.choose` found (docs/sparse.md).
    Raises ModelError for what can't be trained, UsageError for an option that does not fit.
    """
    try:
        from .adapters import kept, settings_in, without
        from .channels import split
        from .compiler import import_onnx
        from .scaling import with_scaling
    except ImportError as error:
        raise ModelError(f"can't read ONNX files ({error}): install edgefl-toolkit[aggregator]") from None
    choices = Choices.of(freeze=freeze, train=train, tie=tie, untie=untie)
    _check_dims(dims)
    if constants is not None and not isinstance(constants, Mapping):
        raise UsageError(f"constants is {constants!r}: give the value of each input by its name, as in {{'h0': 0}}")
    wanted = AdapterSettings.of({} if adapters is None else adapters)
    where, data = _bytes_of(source)
    try:
        targets = None if y is None else np.asarray(y)
        settings = settings_in(data)
        base = data if settings is None else without(data)
        model = import_onnx(base, loss, choices, dict(dims or {}), targets, constants=constants)
        if settings is not None:
            model = model.adapted(data, Adapters(settings, kept(data, base, model.plan, model.bindings)))
        return split((with_scaling(model) if standardize else model).adapt(wanted), channels or {})
    except ModelError as error:
        raise ModelError(f"{where}{error}") from error.__cause__


def _bytes_of(source: object) -> tuple[str, bytes]:
    """What precedes an error's text, and the file's bytes."""
    if isinstance(source, str | os.PathLike):
        return f"{os.fspath(source)}: ", _read(path_of(source))
    if isinstance(source, bytes):
        return "", source
    if isinstance(source, type) or not hasattr(source, "SerializeToString"):
        raise UsageError(f"source is {source!r}: give the path of an ONNX file, its bytes or a ModelProto")
    return "", source.SerializeToString()


def _check_dims(dims: object) -> None:
    sizes = isinstance(dims, Mapping) and all(
        isinstance(name, str) and isinstance(size, int) for name, size in dims.items()
    )
    if dims is not None and not sizes:
        raise UsageError(f"dims is {dims!r}: give the size of each open axis by its name, as in {{'time': 80}}")


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelError(f"{path} is larger than 2 GB: no ONNX file in one piece is; check the path")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror}; check the path") from None
