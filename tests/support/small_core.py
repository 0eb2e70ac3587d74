"""A plugin of pytest: `edgefl._core` is the small core that EDGEFL_SMALL_CORE names, for the core's own tests."""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "edgefl._core"

_spec = importlib.util.spec_from_file_location(NAME, os.environ["EDGEFL_SMALL_CORE"])
assert _spec is not None
assert _spec.loader is not None
_core = importlib.util.module_from_spec(_spec)
sys.modules[NAME] = _core
_spec.loader.exec_module(_core)

import edgefl  # noqa: E402

edgefl._core = _core  # type: ignore[attr-defined]
