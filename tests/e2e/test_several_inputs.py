"""Real processes train a model with two inputs and two outputs, from a file whose arrays are in another order."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
from onnx_files import SEVERAL, onnx_model


def test_agents_get_the_columns_in_the_order_of_the_model(tmp_path):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(120, 4)).astype(np.float32), rng.integers(0, 6, (120, 2))
    arrays = {"x.b": b, "x.a": a, "y.size": a[:, :1] - b[:, :1], "y.kind": rng.integers(0, 3, 120)}
    np.savez(tmp_path / "d.npz", **arrays)
    onnx.save(onnx_model(SEVERAL), tmp_path / "m.onnx")
    command = [
        sys.executable, "-m", "edgefl", "simulate", "--model", "m.onnx", "--data", "npz:d.npz", "--devices", "2",
        "--rounds", "1", "--loss", "kind=cross_entropy, size=mse:0.5", "--transport", "mqtt", "--out", "run",
        "--json", "result.json",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    rounds = json.loads((tmp_path / "result.json").read_text())["rounds"]
    assert rounds[-1]["reported"] == 2 and rounds[-1]["accuracy"] is not None
