"""Sites: the weights that have an adapter, what trains of them, and what they are once it is merged. No ONNX here.

merged = W + (alpha / rank) A B        W (I, O), A (I, rank), B (rank, O)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..core.adapters import PREFIX, AdapterSettings


class Site(NamedTuple):
    """A weight with an adapter: its name, the number of the node that reads it, and its shape (I, O); `turned` if the
    node reads it as (O, I)."""

    weight: str
    node: int
    inputs: int
    outputs: int
    turned: bool

    def part(self, name: str) -> str:
        """The name of a node or tensor of this adapter."""
        return f"{PREFIX}{self.weight}.{name}"

    @property
    def a(self) -> str:
        return self.part("A")

    @property
    def b(self) -> str:
        return self.part("B")


@dataclass(frozen=True)
class Adapters:
    """The adapters of a model. `plain`: weights that the settings name and that have none, and why."""

    settings: AdapterSettings
    sites: tuple[Site, ...]
    plain: Mapping[str, str] = field(default_factory=dict)

    @property
    def trained(self) -> list[str]:
        """Names and patterns of all that trains."""
        both = self.settings.trained == "AB"
        own = [name for site in self.sites for name in ((site.a, site.b) if both else (site.b,))]
        return [*own, *self.settings.also]

    def merged(self, weights: Mapping[str, np.ndarray], adapters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`weights` by name, flat float32 in the file's order, with `adapters` in them: computed in float64. A number
        to which its adapter adds 0 keeps its bits."""
        out = dict(weights)
        factor = self.settings.alpha / self.settings.rank
        for site in self.sites:
            a = adapters[site.a].reshape(site.inputs, -1).astype(np.float64)
            added = factor * (a @ adapters[site.b].reshape(-1, site.outputs))
            added = (added.T if site.turned else added).ravel()
            weight = weights[site.weight]
            out[site.weight] = np.where(added == 0, weight, (weight.astype(np.float64) + added).astype(np.float32))
        return out
