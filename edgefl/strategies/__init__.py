"""Strategies: how updates are combined. One strategy a file; to add one, write the file and add its line here."""

from __future__ import annotations

from typing import Any

from ..registry import build
from .base import Strategy, Update

STRATEGIES = {
    "fedavg": "edgefl.strategies.fedavg:FedAvg",
    "fedsgd": "edgefl.strategies.fedsgd:FedSGD",
}

__all__ = ["STRATEGIES", "Strategy", "Update", "get"]


def get(name: str, **options: Any) -> Strategy:
    """The strategy called `name`, with its options; UsageError names the nearest for a misspelt one."""
    return build(STRATEGIES, name, "strategy", options)
