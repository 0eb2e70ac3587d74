"""EdgeFL: federated learning for devices that are really out there. One ONNX file in, one better ONNX file out.

The names below are loaded on first use, so that a device imports only what it runs
(neither onnx nor the simulator).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names of `_WHERE` and `_PACKAGES` again, for type checkers and editors
    from . import codecs as codecs
    from . import data as data
    from . import settings as settings
    from . import strategies as strategies
    from . import testing as testing
    from .core.plan import Plan as Plan
    from .core.trainer import LocalResult as LocalResult
    from .core.trainer import Trainer as Trainer
    from .errors import EdgeFLError as EdgeFLError
    from .history import History as History
    from .onnx.load import load as load
    from .onnx.model import Model as Model
    from .settings import Settings as Settings
    from .simulation.simulate import simulate as simulate

__version__ = "0.1.0"

_WHERE = {
    "load": "edgefl.onnx.load",
    "Model": "edgefl.onnx.model",
    "Plan": "edgefl.core.plan",
    "Trainer": "edgefl.core.trainer",
    "LocalResult": "edgefl.core.trainer",
    "Settings": "edgefl.settings",
    "simulate": "edgefl.simulation.simulate",
    "History": "edgefl.history",
    "EdgeFLError": "edgefl.errors",
}
_PACKAGES = ("codecs", "data", "settings", "strategies", "testing")
__all__ = [*_WHERE, *_PACKAGES, "__version__"]


if not TYPE_CHECKING:  # which would believe that every name exists

    def __getattr__(name: str) -> Any:
        if name in _WHERE:
            return getattr(import_module(_WHERE[name]), name)
        if name in _PACKAGES:
            return import_module(f"edgefl.{name}")
        raise AttributeError(f"module 'edgefl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
