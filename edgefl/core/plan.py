"""Plan: the compiled graph that a device executes. A few kB of JSON, no code.

Design:
  a) Values are numbered in the order of computation: value 0 is the network's input, node i makes value i+1.
  b) A node names an op of the core's table (src/ops/ops.h) and gives the values it reads, the params it
     owns and its attributes, as positional ints and floats; each op's C file documents their order.
  c) Shapes are per sample: the samples axis comes first everywhere and is never written down. The core
     infers every shape from the input's and refuses what does not fit.
  d) Params lie one after another in one flat float32 vector (P,): trained ones first, then state (running
     statistics, and whatever is frozen: `freeze`).
  e) The loss reads value `loss_input`; `output` is what predict returns (often one activation further on).
  f) A model with several inputs has one here: a flat row, whose columns are those of `inputs`, one after another.
     Slices of the plan take it apart. With several `losses`, y and `output` are flat rows in the same way.
     A plan that has neither does not write these fields, so its bytes are those of earlier versions.

Not here: ONNX (onnx/) and execution (trainer.py, src/).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from ..digests import sha256
from ..errors import ModelError, UsageError, nearest

Dim = Annotated[int, Meta(ge=1, le=2**24)]
Shape = Annotated[list[Dim], Meta(max_length=6)]  # EFL_MAX_DIMS of efl.h
Index = Annotated[int, Meta(ge=0, le=4096)]
LOSSES = ("cross_entropy", "bce", "mse", "l1", "huber", "hinge", "focal")
INPUT_DTYPES = ("float32", "int64")


class Param(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One tensor of the params vector: its canonical name, its shape, and whether SGD moves it."""

    name: Annotated[str, Meta(max_length=256)]
    shape: Shape
    trainable: bool = True

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Node(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One op: inputs are value numbers, params are indices into `Plan.params`."""

    op: Annotated[str, Meta(max_length=32)]
    inputs: Annotated[list[Index], Meta(min_length=1, max_length=8)]
    params: Annotated[list[Index], Meta(max_length=8)] = []
    ints: Annotated[list[int], Meta(max_length=48)] = []  # EFL_MAX_INTS of efl.h
    floats: Annotated[list[float], Meta(max_length=4)] = []


class Input(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One of several inputs: its name in the model's file, its shape, and "int64" if it takes tokens."""

    name: Annotated[str, Meta(max_length=256)]
    shape: Shape
    dtype: str = "float32"

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Head(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One of several losses: the name of its output in the model's file, which of `LOSSES`, the value that it reads,
    what its mean is multiplied by in the sum, and the shape of its part of the plan's output."""

    name: Annotated[str, Meta(max_length=256)]
    loss: str
    input: Index
    weight: Annotated[float, Meta(gt=0, le=1e6)]
    shape: Shape


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """The compiled graph. `loss` is one of `LOSSES`, the first of `losses` if there are several; shapes are per
    sample."""

    input_shape: Shape
    nodes: Annotated[list[Node], Meta(min_length=1, max_length=1024)]
    params: Annotated[list[Param], Meta(max_length=1024)]
    loss: str
    loss_input: Index
    output: Index
    input_dtype: str = "float32"
    version: int = 1
    inputs: Annotated[list[Input], Meta(min_length=2, max_length=32)] | UnsetType = UNSET
    losses: Annotated[list[Head], Meta(min_length=2, max_length=8)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ModelError(f"plan version {self.version} is newer than this edgefl knows (1): update edgefl")
        if self.loss not in LOSSES:
            raise ModelError(f"unknown loss {self.loss!r}: use one of {', '.join(LOSSES)}")
        if self.input_dtype not in INPUT_DTYPES:
            raise ModelError(f"unknown input dtype {self.input_dtype!r}: use one of {', '.join(INPUT_DTYPES)}")
        trainable = [p.trainable for p in self.params]
        if trainable != sorted(trainable, reverse=True):
            raise ModelError("plan: state must come after every trained parameter")
        self._check_inputs()
        self._check_losses()

    def _check_inputs(self) -> None:
        if not self.inputs:
            return
        if any(each.dtype not in INPUT_DTYPES for each in self.inputs) or self.input_dtype != "float32":
            raise ModelError(f"plan: unknown dtype of an input: use one of {', '.join(INPUT_DTYPES)}")
        if self.input_shape != [sum(each.size for each in self.inputs)]:
            raise ModelError("plan: its inputs do not fill its input_shape: compile it again from its ONNX file")
        if len({each.name for each in self.inputs}) < len(self.inputs):
            raise ModelError("plan: two inputs have one name: compile it again from its ONNX file")

    def _check_losses(self) -> None:
        if not self.losses:
            return
        if any(head.loss not in LOSSES for head in self.losses):
            raise ModelError(f"plan: unknown loss of an output: use one of {', '.join(LOSSES)}")
        if (self.loss, self.loss_input) != (self.losses[0].loss, self.losses[0].input):
            raise ModelError("plan: loss is not the first of losses: compile it again from its ONNX file")
        if len({head.name for head in self.losses}) < len(self.losses):
            raise ModelError("plan: two losses have one name: compile it again from its ONNX file")

    @property
    def loss_text(self) -> str:
        """The loss or the losses, as `edgefl.load` and settings take them in a text."""
        weights = ((head, "" if head.weight == 1 else f":{head.weight!r}") for head in self.losses or [])
        return ", ".join(f"{head.name}={head.loss}{weight}" for head, weight in weights) or self.loss

    @cached_property
    def num_params(self) -> int:
        """P, the length of the params vector, state included."""
        return sum(p.size for p in self.params)

    @cached_property
    def num_trainable(self) -> int:
        """How many leading coordinates of the params vector SGD moves."""
        return sum(p.size for p in self.params if p.trainable)

    def freeze(self, names: Iterable[str]) -> tuple[Plan, list[int]]:
        """The plan with these params as state, and every param's former index. A name means all that start so.

        State comes after what is trained, so the order of the params vector changes too: its tensor i was tensor
        order[i] before. Raises UsageError for a name that no param has, or if nothing would be left to train.
        """
        names = list(names)
        for name in names:
            if not any(param.name.startswith(name) for param in self.params):
                hint = nearest(name, [param.name for param in self.params])
                raise UsageError(f"no parameter's name starts with {name!r}: {hint}")
        return self.frozen({i for i, param in enumerate(self.params) if param.name.startswith(tuple(names))})

    def frozen(self, indices: Collection[int]) -> tuple[Plan, list[int]]:
        """As `freeze`, for the params with these indices."""
        params = [replace(p, trainable=p.trainable and i not in indices) for i, p in enumerate(self.params)]
        if not any(param.trainable for param in params):
            raise UsageError("every parameter would be frozen: leave one to train")
        order = sorted(range(len(params)), key=lambda index: not params[index].trainable)
        place = {old: new for new, old in enumerate(order)}
        nodes = [replace(node, params=[place[index] for index in node.params]) for node in self.nodes]
        return replace(self, nodes=nodes, params=[params[old] for old in order]), order

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the plan's canonical bytes, hex."""
        return sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Decode and bound a plan; raises ModelError. The core checks the graph itself."""
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise ModelError(f"not a plan: {error}") from None
