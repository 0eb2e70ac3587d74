"""The manifest, retained: what a federation trains, and how. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from msgspec.structs import replace

from .. import codecs
from ..codecs.base import Codec
from ..codecs.stacked import Stacked
from ..core.mask import Mask
from ..core.plan import Param, Plan
from ..digests import sha256
from ..errors import ModelError
from ..settings import TrainSettings
from ..settings.sections import MAX_SPAN
from ..strategies.local import LocalRule
from ..trust.document import Name
from .envelope import MAX_PART_BYTES, MIN_PART_BYTES
from .features import Requires
from .messages import KeepsBytes, Sha256

MAX_SKELETON = 2**20  # bytes of the skeleton of a model's file
MAX_SIDES = 4  # vectors behind the params of a model, or behind the delta of an update

Sides = Annotated[list[Annotated[str, Meta(pattern="^[a-z0-9_-]{1,32}\\Z")]], Meta(max_length=MAX_SIDES)]


class SkeletonInfo(msgspec.Struct, frozen=True):
    """The skeleton of the model's ONNX file (core/skeleton.py): its SHA-256 and its length. It lies in `SKELETON_SLOT`,
    in parts of `part_bytes`, for devices whose owners want the file; nothing else needs it."""

    sha256: Sha256
    size: Annotated[int, Meta(ge=1, le=MAX_SKELETON)]


class Base(msgspec.Struct, frozen=True):
    """Params that no training changes, as indices of the plan's params in ascending order: frozen weights, say. They go
    down once, in a payload of `size` bytes of the codec `planes`, which lies in `BASE_SLOT` in parts of `part_bytes`.
    `sha256` is that of their numbers, as little-endian float32. Neither models nor updates have them. A base that is
    not on the broker yet has no SHA-256."""

    params: Annotated[list[Annotated[int, Meta(ge=0, le=1023)]], Meta(min_length=1, max_length=1024)]
    sha256: Annotated[str, Meta(pattern="^([0-9a-f]{64})?\\Z")] = ""
    size: Annotated[int, Meta(ge=0, le=2**31)] = 0


class Manifest(KeepsBytes, msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """What a federation trains. `run` is drawn once per aggregator state: round numbers count within it.

    `local_mode` is the strategy's: a device sends the delta of local SGD, or one gradient over all its examples.

    `forms` are what payloads of `codec` may have that is younger than the codec (codecs/base.py). The aggregator reads
    them; a device that does not know them writes what its version always wrote, and takes part as before.

    `downlink` is the codec of models: a lossless one that does not round them writes each version whole, any other one
    the difference from a version at most `span` rounds earlier (coordinator/model/downlink.py).

    With `error_feedback`, a device adds what the codec dropped from its last update to the next one.

    `personal` are the indices of the plan's params that stay on each device: an update has the others alone
    (core/mask.py). ModelError for indices that the plan can't have.

    `base` is what devices fetch once and keep; it requires "base", and goes with no side vectors.

    `local` is what devices do in training, where that is not plain local SGD (device/local); it requires "local".

    `sides` names the vectors, as long as the params, that lie behind them in each model, in this order; it requires
    "side".

    `sent_sides` names the vectors, as long as the delta, that lie behind it in each update, in this order; it requires
    "sent-side".

    `by_step` is what `strategy.weights` says, where the strategy divides an update by its steps before it weighs it: a
    device then keeps what its codec dropped as it would have counted. A device that does not know it keeps it as it is.

    `holdout` is the share of its examples on which a device evaluates each model, and never trains (device/holdout.py).
    """

    federation: Name
    run: Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
    plan: Plan
    train: TrainSettings
    codec: Annotated[str, Meta(max_length=32)] = "raw32"
    codec_options: dict[str, int | float | str] = {}
    part_bytes: Annotated[int, Meta(ge=MIN_PART_BYTES, le=MAX_PART_BYTES)] = 64 * 1024 - 48
    error_feedback: bool = False

    downlink: Annotated[str, Meta(max_length=32)] = "raw32"
    downlink_options: dict[str, int | float | str] = {}
    span: Annotated[int, Meta(ge=1, le=MAX_SPAN)] = 1
    holdout: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    local_mode: Literal["sgd", "gradient"] = "sgd"
    requires: Requires = []
    skeleton: SkeletonInfo | None = None
    personal: Annotated[list[Annotated[int, Meta(ge=0, le=1023)]], Meta(max_length=1024)] = []
    local: LocalRule | None = None
    sides: Sides = []
    sent_sides: Sides = []
    by_step: Annotated[str, Meta(pattern="^(examples|uniform|capped:[1-9][0-9]{0,8})?\\Z")] = ""
    base: Base | None = None
    forms: Annotated[list[Annotated[str, Meta(pattern="^[a-z0-9-]{1,32}\\Z")]], Meta(max_length=16)] = []

    def __post_init__(self) -> None:
        if self.personal or self.base:
            _ = self.mask
        if self.base and (self.sides or self.sent_sides):
            raise ModelError("frozen params that go down once, and side vectors of the whole model, do not go together")

    @property
    def id(self) -> str:
        """The name of this manifest in round messages."""
        return manifest_id(self.raw)

    @property
    def keeps_slots(self) -> bool:
        """Whether an update leaves something on its device (device/slots.py), which depends on its receipt."""
        return self.error_feedback or self.local is not None or bool(self.personal)

    @property
    def keeps_own(self) -> bool:
        """Whether such a slot is lost for good if the receipt is: a residual only costs what the codec dropped."""
        return self.local is not None or bool(self.personal)

    @cached_property
    def update_codec(self) -> Codec:
        """The codec of updates, for the tensors that are shared; UsageError if this installation lacks it."""
        codec = codecs.from_wire(self.codec, self.codec_options).for_tensors(self.mask.tensors).with_forms(self.forms)
        return Stacked(codec, 1 + len(self.sent_sides)) if self.sent_sides else codec

    @property
    def update_size(self) -> int:
        """The numbers of an update: the delta of the shared params and the side vectors behind it."""
        return (1 + len(self.sent_sides)) * self.mask.num_shared

    def stack(self, delta: np.ndarray, sides: Mapping[str, np.ndarray]) -> np.ndarray:
        """An update as it goes up, (update_size,), of a delta (P,) and side vectors (P,) by name."""
        shared = [self.mask.shared(vector) for vector in (delta, *(sides[name] for name in self.sent_sides))]
        return np.concatenate(shared) if self.sent_sides else shared[0]

    @cached_property
    def mask(self) -> Mask:
        """Which params an update has, and how many: everything that reads or adds one goes by it."""
        return Mask(self.plan, self.personal, self.base.params if self.base else ())

    @cached_property
    def moving(self) -> Mask:
        """Which params a model has as it goes down: all but the base, which is its `own` part."""
        return Mask(self.plan, self.base.params if self.base else ())

    @property
    def base_codec(self) -> Codec:
        """The codec of the base."""
        return codecs.from_wire("planes", {})

    @cached_property
    def model_codecs(self) -> tuple[Codec, Codec | None]:
        """The codecs of keyframes and of deltas, None if every version is a keyframe; UsageError as `update_codec`."""
        codec = codecs.from_wire(self.downlink, self.downlink_options)
        if codec.rounds:
            # A budget is for deltas: a version that has no delta within it goes whole, in whatever that takes.
            options = {name: value for name, value in self.downlink_options.items() if name != "max_bytes"}
            whole = codecs.from_wire(self.downlink, options).for_tensors(self._rounded_tensors)
            return self._stacked(whole), self._stacked(codec.for_tensors(self._rounded_tensors))
        codec = codec.for_tensors(self.moving.tensors)
        if codec.lossless:
            return self._stacked(codec), None
        return self._stacked(codecs.from_wire("planes", {})), self._stacked(codec)

    @property
    def _rounded_tensors(self) -> list[Param]:
        """Those of a model as it goes down; what is personal counts as not trained. New devices begin with it, no
        update moves it, and so no later model would restore what rounding took."""
        base = self.base.params if self.base else []
        return [
            replace(tensor, trainable=tensor.trainable and index not in self.personal)
            for index, tensor in enumerate(self.plan.params)
            if index not in base
        ]

    def _stacked(self, codec: Codec) -> Codec:
        return Stacked(codec, 1 + len(self.sides)) if self.sides else codec

    @property
    def model_size(self) -> int:
        """The numbers of a model as it goes down: the params that move, and the side vectors."""
        return (1 + len(self.sides)) * self.moving.num_shared

    @property
    def whole_size(self) -> int:
        """The numbers of a model as a device has it."""
        return (1 + len(self.sides)) * self.plan.num_params

    def unstack(self, model: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The params (P,) and the side vectors, (P,) by name, of a model as a device has it."""
        params, *sides = np.split(model, 1 + len(self.sides)) if self.sides else [model]
        return params, dict(zip(self.sides, sides, strict=True))

    def check_codecs(self) -> None:
        """UsageError unless this installation has all codecs, and they accept their options."""
        _ = self.update_codec, self.model_codecs


def manifest_id(raw: bytes) -> str:
    """The head of the SHA-256 of a manifest's bytes, as they are published."""
    return sha256(raw).hexdigest()[:16]


msgspec.json.Decoder(Manifest)  # described at import: see messages.py
