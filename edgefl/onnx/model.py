"""Model: an ONNX file, the plan compiled from it, and its params. `edgefl.load` makes one.

Only the aggregator's side and the simulator use it: reading and writing ONNX needs the extra `aggregator`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ..atomic import write_atomically
from ..core import targets
from ..core.adapters import AdapterSettings
from ..core.plan import Plan
from ..errors import DataError, ModelError, UsageError, path_of
from .choices import Choices
from .losses import Ending
from .sites import Adapters

if TYPE_CHECKING:
    from .constants import Constant
    from .export import Binding, Copied, Origin
    from .inputs import Input
    from .untrained import Shared, Untrained


@dataclass(frozen=True, eq=False)
class Model:
    """A trainable ONNX model. `compiler.import_onnx` makes one."""

    source: bytes  # the file as it was
    plan: Plan
    params: np.ndarray  # (P,) float32, the file's own values in the plan's order; read-only
    bindings: list[Binding]  # of each param, in the plan's order
    origins: list[Origin]
    inputs: tuple[Input, ...]  # of the ONNX graph, in the order of the columns of the plan's input
    batch: int | None  # samples a run, if the file fixes them
    alone: bool  # a run is of one sample, and several would mean something else to the file
    output_names: list[str]  # of the ONNX graph, labels included
    heads: tuple[Ending, ...]  # the outputs that are trained, in the order of the columns of the plan's output
    loss_inferred: bool  # False if the caller named the loss
    heads_named: bool = False  # the caller named the outputs
    choices: Choices = field(default_factory=Choices)  # what the caller named, as in `edgefl.load`
    dims: Mapping[str, int] = field(default_factory=dict)
    constants: tuple[Constant, ...] = ()  # inputs of the ONNX graph that are the same for every sample
    untrained: tuple[Untrained, ...] = ()  # what training leaves as it is, and why
    shared: tuple[Shared, ...] = ()  # what several nodes read, and equal layers that an exporter has merged
    copied: Sequence[Copied] = ()  # tensors of the file that follow others
    compile: Callable[[bytes, Sequence[str] | None], Model] = field(repr=False, kw_only=True)  # another such file
    adapters: Adapters | None = None  # in the plan and in `source`, beside frozen weights
    base: Model | None = None  # without the adapters: they are merged into its file
    arena_bytes: int | None = None  # of what trains, where that was chosen for a budget (sparse.py)

    def __post_init__(self) -> None:
        self.params.flags.writeable = False

    @property
    def input_name(self) -> str:
        """The ONNX input, the first of several."""
        return self.inputs[0].name

    @property
    def input_dtype(self) -> np.dtype:
        """Of x: that of the ONNX input. Several are float32 columns of one array."""
        return self.inputs[0].dtype if len(self.inputs) == 1 else np.dtype(np.float32)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """What `plan.output` holds of a sample; of several outputs all, as one row."""
        return self.heads[0].shape if len(self.heads) == 1 else (sum(prod(head.shape) for head in self.heads),)

    @property
    def output_tensor(self) -> str:
        """The tensor of the ONNX graph that `plan.output` computes, the first of several."""
        return self.heads[0].tensor

    @property
    def class_axis(self) -> int:
        """Of the ONNX output, samples included, where the (first) loss takes labels; else -1."""
        return self.heads[0].class_axis

    @property
    def loss_why(self) -> str:
        """Why it is this loss, in words."""
        return self.heads[0].why

    @property
    def losses(self) -> str:
        """The losses as `edgefl.load` and settings take them, in a text."""
        if self.heads_named and len(self.heads) == 1:
            return f"{self.heads[0].name}={self.plan.loss}"
        return self.plan.loss_text

    @property
    def state(self) -> np.ndarray:
        """The untrained tail of `params`, a view: (P - trainable,) float32."""
        return self.params[self.plan.num_trainable :]

    @property
    def loss_line(self) -> str:
        """What programs print at their start: the loss, and why it is this one."""
        if len(self.heads) > 1:
            weights = ["" if head.weight == 1 else f"{head.weight:g} " for head in self.heads]
            terms = [f"{by}{head.loss} of {head.name}" for by, head in zip(weights, self.heads, strict=True)]
            return f"{' + '.join(terms)} (as `loss` says)"
        return f"{self.plan.loss} ({'inferred: ' if self.loss_inferred else ''}{self.loss_why})"

    def check_targets(self, y: np.ndarray) -> None:
        """UsageError if y is labels and the loss takes numbers, or the other way round; with the remedy. Columns for
        several losses are checked where they are read."""
        if len(self.heads) > 1:
            return
        try:
            targets.check(self.plan.loss, self.output_shape, y)
        except DataError as error:
            text, what = error.safe, self.loss_why
            raise UsageError(f"{text} ({what}): {targets.remedy(error.code, self.plan.loss)}") from None

    def check_classes(self, labels: Sequence[str], of: Mapping[str, Sequence[str]] | None = None) -> None:
        """UsageError if data have names for their labels, and not as many as the model tells apart; `of` several
        targets, those of each."""
        try:
            if labels and len(self.heads) == 1:
                targets.check_classes(self.output_shape, len(labels))
            targets.check_classes_of(self.plan, of or {})
        except DataError as error:
            raise UsageError(str(error)) from None

    def with_adapters(
        self, rank: int = 8, on: Sequence[str] = ("*",), *, alpha: float = 16.0, trained: str = "B",
        also: Sequence[str] = (), base: str = "float32", merge: bool = True, seed: int = 0,
    ) -> Model:  # fmt: skip
        """This model with adapters beside its dense weights, which are frozen like all that is not named in `also`.

        The arguments are the settings [adapters] (docs/adapters.md); `seed` draws A. Raises UsageError.
        """
        from .adapters import chosen, put, rounded

        if self.adapters is not None:
            raise UsageError("the model has adapters already: merge them (model.save), and load that file")
        if any(node.op == "conv_part" for node in self.plan.nodes):
            raise UsageError("the model trains some input channels of weights: leave channels out, or adapters")
        given = {"rank": rank, "on": on, "alpha": alpha, "trained": trained, "also": also, "base": base}
        settings = AdapterSettings.of({**given, "merge": merge})
        if not settings.rank:
            raise UsageError("an adapter of rank 0 has no weights: give a rank of 1 or more")
        adapters = chosen(self.source, self.plan, self.bindings, settings)
        exact = settings.base == "float32"
        source = self.source if exact else self.to_bytes(rounded(self.plan, self.params, settings.also))
        return self.adapted(put(source, adapters.sites, settings, seed), adapters)

    def adapt(self, settings: AdapterSettings) -> Model:
        """The model with the adapters that the settings want; itself if they want none, or if it has the same."""
        if not settings.rank:
            return self
        if self.adapters is None:
            return self.with_adapters(**msgspec.to_builtins(settings))
        had = self.adapters.settings
        if msgspec.structs.replace(had, on=settings.on, base=settings.base, merge=settings.merge) != settings:
            raise UsageError(
                f"the file has adapters of rank {had.rank}, other ones than [adapters] says: give them the same rank, "
                "alpha, trained and also, or merge them first (model.save)"
            )
        return replace(self, adapters=Adapters(settings, self.adapters.sites))

    def adapted(self, source: bytes, adapters: Adapters) -> Model:
        """The model of the file `source`, which is this one's with these adapters."""
        return replace(self.compile(source, adapters.trained), adapters=adapters, base=self)

    def to_bytes(self, params: np.ndarray | None = None, *, merge: bool | None = None) -> bytes:
        """The same ONNX file with `params` (P,) in it; None leaves every byte as it was. Raises ModelError.

        `merge` is for a model with adapters: they are added to their weights, or stay beside them; None: as the setting
        adapters.merge was when they were made.
        """
        merges = merge if merge is not None or self.adapters is None else self.adapters.settings.merge
        if self.base is not None and merges:
            return self.base.to_bytes(None if params is None else self._merged(self._checked(params)))
        if params is None:
            return self.source
        from .export import write_params

        names = [param.name for param in self.plan.params]
        after = self._checked(params)
        return write_params(
            self.source, self.origins, self.bindings, names, self.copied, before=self.params, after=after
        )

    def _merged(self, params: np.ndarray) -> np.ndarray:
        """The params of `base`, with the adapters in their weights."""
        assert self.base is not None and self.adapters is not None
        values = self._in_file_order(params)
        params_of, bindings = self.base.plan.params, self.base.bindings
        merged = self.adapters.merged({param.name: values[param.name] for param in params_of}, values)
        return np.concatenate([merged[p.name][b.reads[0].layout] for p, b in zip(params_of, bindings, strict=True)])

    def _in_file_order(self, params: np.ndarray) -> dict[str, np.ndarray]:
        """(size,) float32 for each param by name, in the order of the node input that reads it."""
        found, start = {}, 0
        for param, binding in zip(self.plan.params, self.bindings, strict=True):
            found[param.name] = np.empty(param.size, np.float32)
            found[param.name][binding.reads[0].layout] = params[start : start + param.size]
            start += param.size
        return found

    def _checked(self, params: np.ndarray) -> np.ndarray:
        """(P,) finite float32; UsageError, ModelError."""
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
        return after

    def save(
        self, path: str | os.PathLike[str], params: np.ndarray | None = None, *, merge: bool | None = None
    ) -> None:
        """Writes `to_bytes(params, merge=merge)` to `path`, atomically and durably. Raises ModelError."""
        where = path_of(path)
        data = self.to_bytes(params, merge=merge)
        try:
            write_atomically(where, data)
        except OSError as error:
            raise ModelError(f"can't save {path}: {error.strerror}; check the folder and its space") from None
