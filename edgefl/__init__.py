"""EdgeFL: federated learning for devices that are really out there. One ONNX file in, one better ONNX file out.

The names below are loaded on first use, so that a device imports only what it runs
(neither onnx nor the simulator).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "load": "edgefl.onnx.load",
    "Model": "edgefl.onnx.model",
    "Plan": "edgefl.core.plan",
    "Trainer": "edgefl.core.trainer",
    "LocalResult": "edgefl.core.trainer",
    "simulate": "edgefl.simulation.simulate",
    "History": "edgefl.history",
    "EdgeFLError": "edgefl.errors",
}
__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in ("codecs", "strategies", "data"):
        return import_module(f"edgefl.{name}")
    raise AttributeError(f"module 'edgefl' has no attribute {name!r}")
