"""When a deployment's rounds happen, as its configuration says."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemons import Federation
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent

from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import files


@pytest.mark.parametrize("interval_s, expected", [(None, 60.0), (0.0, 0.0), (5.0, 5.0)])
def test_rounds_open_a_minute_apart_unless_the_configuration_says_otherwise(
    tmp_path: Path, interval_s: float | None, expected: float
) -> None:
    path = Federation(tmp_path, "mqtt://127.0.0.1:1", "fleet").write_aggregator(rounds={"interval_s": interval_s})
    assert ("interval_s" in path.read_text()) is (interval_s is not None)
    aggregator = Aggregator(files.load(path, AggregatorConfig), Silent())
    aggregator._store.close()
    assert aggregator.machine.config.interval_s == expected
    assert aggregator._run.settings.rounds.interval_s == expected, "run.json says what was run"
