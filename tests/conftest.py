"""Fixtures that every test file may use."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["mqtt_fixtures"]

ROOT = Path(__file__).resolve().parent.parent
settings.register_profile("shared-machine", deadline=None)  # a pause of the machine is no failure
settings.load_profile("shared-machine")
gc.disable()  # while tests are collected: nothing goes away, and to look for it costs a third of the time


def pytest_collection_finish() -> None:
    """What was collected stays until the end: it is not looked at again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real inputs (data/, models/); the test is skipped where it is absent."""
    folder = Path(os.environ.get("EDGEFL_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real inputs at {folder}: set EDGEFL_SHARED")
    return folder


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything must be installed, a test that is skipped because something is not has failed."""
    if os.environ.get("EDGEFL_REQUIRE_INSTALLED") != "1":
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    missing = {str(report.longrepr) for report in skipped if "install " in str(report.longrepr)}
    if missing:
        print("\nnot installed:", *sorted(missing), sep="\n    ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
