"""A real agent that is killed, and starts again: what no training changes came once."""

from __future__ import annotations

import numpy as np
import onnx
from daemons import Federation

from edgefl.core.params import params_to_bytes
from edgefl.history_files import read_records
from edgefl.onnx import zoo
from edgefl.onnx.load import load

ROUND = {"deadline_s": 20.0, "min_reports": 2, "expect": 2}


def test_an_agent_that_was_killed_has_the_base_on_its_disk(tmp_path, shared_mosquitto):
    federation = Federation(tmp_path, shared_mosquitto.url, "frozen")
    onnx.save(zoo.mlp([4, 1024, 3], seed=1), tmp_path / "start.onnx")
    model = load(tmp_path / "start.onnx", freeze=["fc1"])
    base = model.params[model.plan.num_trainable :]
    try:
        aggregator = federation.aggregator(rounds=ROUND | {"rounds": 1}, freeze=["fc1"])
        agents = [federation.agent(name) for name in "ab"]
        assert aggregator.join(60.0)
        for agent in agents:
            agent.die()
        for name in "ab":
            assert (tmp_path / name / "base.f32").read_bytes() == params_to_bytes(base)
        aggregator = federation.aggregator(rounds=ROUND | {"rounds": 2}, freeze=["fc1"])
        for name in "ab":
            federation.agent(name)
        assert aggregator.join(60.0) and aggregator.error is None
        assert np.array_equal(aggregator.host.machine.params[model.plan.num_trainable :], base)
    finally:
        federation.close()
    first, second = read_records(tmp_path / "aggregator" / "history.jsonl")
    assert first.reported == second.reported == 2
    assert second.bytes_down < first.bytes_down - 2 * 3 * base.size
