"""A helper whose owner wants noise, on a machine that can't account for it: said at its start, and by --check."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from edgefl_broker.helper import check
from edgefl_broker.helper.config import HelperConfig
from edgefl_broker.helper.daemon import HelperDaemon

from edgefl.errors import UsageError
from edgefl.helper.least import Least
from edgefl.privacy import accountant
from edgefl.transports.settings import MqttConfig

HOW = "pip install 'edgefl-toolkit"


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> Any:
        raise ImportError(name)

    accountant._library.cache_clear()
    monkeypatch.setattr(accountant, "import_module", gone)


def checked(noise: float) -> Any:
    config = SimpleNamespace(least=Least(noise=noise))
    return check.least(cast(check.Subject, SimpleNamespace(config=config)))


@pytest.mark.usefixtures("without")
def test_a_start_says_what_is_missing_before_anything_is_opened(tmp_path: Path) -> None:
    mqtt, state = MqttConfig("mqtt://127.0.0.1"), tmp_path / "state"
    config = HelperConfig(federation="f", name="north", mqtt=mqtt, state_dir=str(state), least=Least(noise=0.5))
    with pytest.raises(UsageError, match=HOW):
        HelperDaemon(config)
    assert not state.exists()


@pytest.mark.usefixtures("without")
def test_check_says_so_where_noise_is_wanted_and_only_there() -> None:
    found = checked(0.5)
    assert found.state == "problem" and HOW in found.todo
    assert checked(0.0).state == "ok"


def test_check_finds_nothing_wrong_where_it_is_there() -> None:
    pytest.importorskip("dp_accounting")
    assert checked(0.5).state == "ok"
