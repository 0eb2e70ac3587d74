"""Settings of adapters: a section of `Settings`, which onnx/ reads too. Nothing on a device does: its plan says all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from ..errors import UsageError

PREFIX = "edgefl.adapters."  # of the names of their params, and of all nodes and tensors that are added to a file
Pattern = Annotated[str, Meta(min_length=1, max_length=256)]


class AdapterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Small trained matrices beside frozen weights, LoRA (docs/adapters.md)."""

    rank: Annotated[
        int, Meta(ge=0, le=1024, description="Columns of A and rows of B beside each weight; 0: there are no adapters.")
    ] = 0
    on: Annotated[
        list[Pattern],
        Meta(
            description="Dense weights that get an adapter: names of weights, of their nodes or of their PyTorch "
            "modules, which may have * and ?. Those that are no larger than their adapter are passed over.",
            examples=[["*attn*"]],
        ),
    ] = field(default_factory=lambda: ["*"])
    alpha: Annotated[float, Meta(gt=0, le=1e6, description="The adapter's output counts alpha / rank times.")] = 16.0
    trained: Annotated[
        Literal["B", "AB"],
        Meta(
            description='"B": A stays as it was drawn, and the mean of adapters is the adapter of the mean (FFA-LoRA). '
            '"AB": both are trained, and averaged apart.'
        ),
    ] = "B"
    also: Annotated[
        list[Pattern],
        Meta(
            description="Weights that are trained in full beside the adapters, a new output layer say: by name, glob, "
            "or the start of a name.",
            examples=[["head"]],
        ),
    ] = field(default_factory=list)
    base: Annotated[
        Literal["float32", "bfloat16"],
        Meta(
            description='Frozen matrices: "float32": as the file has them; "bfloat16": rounded to eight significant '
            "bits, so that they go down in about 11 bits a number, not 27."
        ),
    ] = "float32"
    merge: Annotated[
        bool,
        Meta(
            description="Add the adapters to their weights in the ONNX files that are written; else they stay beside "
            "them, as nodes of the graph."
        ),
    ] = True

    @classmethod
    def of(cls, given: object) -> AdapterSettings:
        """Of a mapping, or of such settings; UsageError for a value that is not allowed."""
        if not isinstance(given, Mapping | cls):
            raise UsageError(f"adapters is {given!r}: give settings, as in {{'rank': 8, 'on': ['*attn*']}}")
        try:
            return msgspec.convert(dict(given) if isinstance(given, Mapping) else msgspec.to_builtins(given), cls)
        except (msgspec.ValidationError, TypeError) as error:
            raise UsageError(f"adapters: {error}: docs/settings.md has the settings of [adapters]") from None
