"""What is timed: a model by its name, small (models.py) or large (large_models.py, which needs torch)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from models import MODELS, VOCABULARY, Spec

if TYPE_CHECKING:
    from torch import nn

DISTINCT = 20  # batches, so that no peer finds its only one in the cache
HAS_TORCH = importlib.util.find_spec("torch") is not None


@dataclass(frozen=True)
class Subject:
    name: str
    spec: Spec

    @property
    def batch(self) -> int:
        return self.spec.batch

    @property
    def loss(self) -> str:
        return "mse" if self.spec.classes is None else "cross_entropy"

    @cached_property
    def file(self) -> bytes:
        return self.spec.make()

    def twin(self) -> nn.Module:
        """The same net in torch, with the same weights where the file was not exported from it."""
        made: Any = getattr(self.spec, "twin", None)
        if made is not None:
            return made()
        from torch_models import twin

        return twin(self.name, self.file, VOCABULARY)

    def data(self, batches: int = DISTINCT) -> tuple[np.ndarray, np.ndarray]:
        given = onnx.ModelProto.FromString(self.file).graph.input[0].type.tensor_type.shape.dim
        return self.spec.data(self.batch * batches, tuple(dim.dim_value for dim in given)[1:])


def names() -> list[str]:
    return [*MODELS, *_large()]


def find(name: str) -> Subject:
    return Subject(name, {**MODELS, **_large()}[name])


def _large() -> dict[str, Spec]:
    if not HAS_TORCH:
        return {}
    from large_models import LARGE

    return dict(LARGE)
