"""SIGTERM ends an agent and an aggregator within three seconds, whatever their broker does."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from brokers import Mosquitto, eventually

from edgefl.data import Dataset
from edgefl.onnx import zoo
from edgefl.simulation.processes import AGGREGATOR, ProcessFleet

LARGE = zoo.mlp([64, 20_000, 10], seed=1).SerializeToString()  # 6 MB: still being sent when the broker freezes
WITHIN_S = 3.0


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("frozen", [False, True])
def test_i07_sigterm_ends_both_daemons_in_three_seconds(
    tmp_path: Path, mosquitto: Mosquitto, frozen: bool, protocol: str
) -> None:
    rng = np.random.default_rng(1)
    data = Dataset(rng.normal(0, 1, (40, 64)).astype(np.float32), rng.integers(0, 10, 40))
    settings = {
        "codec": {"name": "raw32"},
        "downlink": {"name": "raw32"},
        "rounds": {"interval_s": 0.0, "deadline_s": 600.0},
    }
    link = {"session_expiry_s": 0, "protocol": protocol}
    parts = list(np.split(np.arange(40), 2))
    with ProcessFleet(tmp_path / "run", mosquitto.url, LARGE, data, parts, settings=settings, link=link) as fleet:
        log = tmp_path / "run" / "dev-1.log"
        eventually(lambda: "manifest" in log.read_text(), 30.0)
        try:
            if frozen:
                os.kill(mosquitto.pid, signal.SIGSTOP)
                time.sleep(1.0)
            for name in (AGGREGATOR, *fleet.devices):
                process, began = fleet._processes[name], time.monotonic()
                process.terminate()
                assert process.wait(10.0) == 0
                assert time.monotonic() - began < WITHIN_S
        finally:
            os.kill(mosquitto.pid, signal.SIGCONT)
