"""What a net of the zoo is: its maker, the shapes of its inputs, and what it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch_nets import Lambda


@dataclass(frozen=True)
class Tokens:
    """An input of `steps` whole numbers below `vocabulary`."""

    steps: int
    vocabulary: int


@dataclass(frozen=True)
class Spec:
    """`inputs` has a shape a sample, or Tokens, for each input. `classes` 0: the target is numbers like the output."""

    make: Callable[[], nn.Module]
    inputs: Sequence[tuple[int, ...] | Tokens]
    classes: int = 3
    lr: float = 0.05
    train: Sequence[str] = ()  # single numbers, which stay as they are else
    freeze: Sequence[str] = ()  # buffers, which a file stores like weights

    def data(self, n: int, seed: int) -> list[np.ndarray]:
        """(n, ...) for each input."""
        rng = np.random.default_rng(seed)
        return [
            rng.integers(0, given.vocabulary, (n, given.steps))
            if isinstance(given, Tokens)
            else rng.normal(0, 1, (n, *given)).astype(np.float32)
            for given in self.inputs
        ]

    def targets(self, output: Tensor, seed: int) -> np.ndarray:
        """Labels, one for each place of the output but its axis of classes (1 in images, else the last); or numbers."""
        rng = np.random.default_rng(seed + 1)
        if not self.classes:
            return rng.normal(0, 1, tuple(output.shape)).astype(np.float32)
        places = list(output.shape)
        del places[1 if output.ndim == 4 else -1]
        return rng.integers(0, self.classes, places)


class Lambda2(Lambda):
    """The same for two inputs."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.run(self, x, other)


class Plus(nn.Module):
    """x + body(x)"""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def pooled(channels: int, classes: int = 3) -> list[nn.Module]:
    """The usual end of an image net."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
