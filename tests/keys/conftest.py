"""A federation's folder of keys for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from enrolled import SETTINGS

from edgefl.keys import enrolment


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    enrolment.init(tmp_path / "keys", SETTINGS)
    return tmp_path / "keys"
