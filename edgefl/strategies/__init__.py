"""Strategies: how updates become the next model. A strategy is pre → combine → server optimizer.

    pre/       what is done to one update     staleness
    combine/   how updates become one delta   mean, spilled (the base of rules that need every update)
    server/    how the delta moves the model  step, momentum

To add one, write the part that is missing, one rule a file, and a preset with a line here.
"""

from __future__ import annotations

from typing import Any

from ..registry import build
from .base import Site, State, Strategy, Update

STRATEGIES = {
    "fedavg": "edgefl.strategies.presets:fedavg",
    "fedavgm": "edgefl.strategies.presets:fedavgm",
    "fedsgd": "edgefl.strategies.presets:fedsgd",
}

__all__ = ["STRATEGIES", "Site", "State", "Strategy", "Update", "get"]


def get(name: str, **options: Any) -> Strategy:
    """The strategy called `name`, with its options; UsageError names the nearest for a misspelt one."""
    return build(STRATEGIES, name, "strategy", options)
