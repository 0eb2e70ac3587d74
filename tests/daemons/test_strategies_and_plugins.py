"""What the daemons do at their start with a strategy's state and with the plug-ins that they are told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from daemons import Federation
from edgefl_agent.agent import Agent
from edgefl_agent.config import AgentConfig
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent

from edgefl.errors import UsageError
from edgefl.history_record import RoundRecord
from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import files
from edgefl.strategies.checkpoint import pack

NOWHERE = "mqtt://127.0.0.1:1"


def start(folder: Path, **tables: Any) -> Aggregator:
    """An aggregator that never connects."""
    path = Federation(folder, NOWHERE, "fleet").write_aggregator(**tables)
    return Aggregator(files.load(path, AggregatorConfig), Silent())


def test_a_strategy_gets_its_own_state_back_and_no_other_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = start(tmp_path, strategy={"name": "fedavgm"})
    params = first.machine.params
    velocity = {"server.velocity": np.ones(len(params), np.float32)}
    record = RoundRecord(1, "committed", 1, 1, ["dev-a"], 10, 0.5, 100, 100, 1.0)
    first._store.commit(record, params + 1, state=pack("fedavgm", velocity))
    first._store.close()
    again = start(tmp_path, strategy={"name": "fedavgm"})
    again._store.close()
    assert again.machine.strategy.state()["server.velocity"].tobytes() == velocity["server.velocity"].tobytes()
    assert "starts anew" not in caplog.text
    other = start(tmp_path, strategy={"name": "fedavg"})
    other._store.close()
    assert other.machine.params.tobytes() == (params + 1).tobytes() and other.machine.strategy.state() == {}
    assert "the state of strategy fedavgm is not for fedavg, which starts anew" in caplog.text


def test_a_spill_too_small_for_a_round_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "medians.py").write_text(
        "import numpy as np\n"
        "from edgefl.strategies.combine.spilled import Spilled\nfrom edgefl.strategies.composed import Composed\n"
        "from edgefl.strategies.server.step import Step\n"
        "class Median(Spilled):\n    def rule(self, deltas, weights): return np.median(deltas, axis=0)\n"
        "def median(): return Composed('median', combine=Median(), server=Step(1.0))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"2 updates of 67 params take 536 bytes on disk, spill_mb allows 500"):
        start(tmp_path, strategy={"name": "medians:median", "spill_mb": 0.0005})


@pytest.mark.parametrize("codec", ["nowhere:Tiny", "tiny", "os:getcwd"])
def test_a_codec_in_a_devices_list_that_can_not_be_used_ends_its_start(tmp_path: Path, codec: str) -> None:
    path = Federation(tmp_path, NOWHERE, "fleet").write_agent("dev-a", plugins={"codecs": [codec]})
    with pytest.raises(UsageError, match=f"codec '{codec}'"):
        Agent(files.load(path, AgentConfig))
