"""Fixtures that every test file may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["mqtt_fixtures"]

ROOT = Path(__file__).resolve().parent.parent
settings.register_profile("shared-machine", deadline=None)  # a pause of the machine is no failure
settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real inputs (data/, models/); the test is skipped where it is absent."""
    folder = Path(os.environ.get("EDGEFL_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real inputs at {folder}: set EDGEFL_SHARED")
    return folder
