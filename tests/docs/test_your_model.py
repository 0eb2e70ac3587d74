"""docs/your-model.md: each recipe makes a file of which every weight trains, and that agrees with onnxruntime."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from conftest import ROOT
from onnx import numpy_helper
from onnx_files import assert_computes

import edgefl
from edgefl.onnx.evaluate import OnnxEvaluator

PAGE = (ROOT / "docs" / "your-model.md").read_text(encoding="utf-8")
KERAS = "EDGEFL_KERAS_PYTHON"  # a Python that has keras, tensorflow and tf2onnx: make test-keras


README = (ROOT / "README.md").read_text(encoding="utf-8")


def recipe(title: str, page: str = PAGE) -> str:
    """The Python blocks of one section."""
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def run(title: str, folder: Path, python: str = sys.executable, page: str = PAGE) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", recipe(title, page)], cwd=folder, capture_output=True, text=True, timeout=300,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def trained(path: Path) -> list[str]:
    """Names of what trains, of a file that computes the same here and in onnxruntime."""
    model = edgefl.load(path)
    assert_computes(model, tolerance=1e-4)
    return [param.name for param in model.plan.params if param.trainable]


def test_a_template(tmp_path):
    run("A template", tmp_path)
    assert len(trained(tmp_path / "template.onnx")) == 6


@pytest.mark.torch
def test_the_readme_keeps_a_torch_net_whole(tmp_path):
    """One step of both files moves as PyTorch's own step does, batch normalization included."""
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    import numpy as np
    import torch

    run("What it trains", tmp_path, page=README)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 1, 8, 8)).astype(np.float32), rng.integers(0, 10, 6)
    for name in ("older.onnx", "newer.onnx"):
        assert trained(tmp_path / name) == ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"]
        model = edgefl.load(tmp_path / name)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(),
            torch.nn.Linear(8 * 36, 10),
        )  # fmt: skip
        stored = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in initializers(tmp_path / name)}
        shared = {"1.bias": "1.running_mean", "1.weight": "1.running_var"}  # a fresh mean and variance, stored once
        for key in net.state_dict().keys() - stored.keys() - {"1.num_batches_tracked"}:
            stored[key] = stored[next(kept for kept, other in shared.items() if other == key)].clone()
        net.load_state_dict(stored, strict=False)
        fitted = edgefl.Trainer(model.plan).fit(model.params, x, y, epochs=1, batch_size="all", lr=0.1)
        optimizer = torch.optim.SGD(net.train().parameters(), lr=0.1)
        torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
        file = edgefl.load(model.to_bytes(model.params + fitted.delta))
        ours = OnnxEvaluator(file).predict(file.params, x)
        np.testing.assert_allclose(ours, net.eval()(torch.from_numpy(x)).detach().numpy(), rtol=0, atol=1e-4)


def initializers(path: Path) -> list[onnx.TensorProto]:
    return list(onnx.load(path).graph.initializer)


@pytest.mark.torch
def test_pytorch_by_both_exporters(tmp_path):
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    run("PyTorch", tmp_path)
    for name in ("torch.onnx", "dynamo.onnx"):
        assert trained(tmp_path / name) == ["0.weight", "0.bias", "1.weight", "1.bias", "5.weight", "5.bias"]


@pytest.mark.torch
def test_several_inputs_and_outputs(tmp_path):
    pytest.importorskip("torch")
    run("Several inputs and outputs", tmp_path)
    model = edgefl.load(tmp_path / "two.onnx", loss="kind=cross_entropy, age=mse:0.1")
    assert [each.name for each in model.inputs] == ["picture", "words"]
    assert all(param.trainable for param in model.plan.params)


def test_scikit_learn(tmp_path):
    pytest.importorskip("skl2onnx")
    run("scikit-learn", tmp_path)
    model = edgefl.load(tmp_path / "sklearn.onnx")
    assert (model.plan.loss, model.plan.num_trainable) == ("cross_entropy", 3 * 16 + 16 + 16 * 3 + 3)


def test_keras(tmp_path):
    """Every layer keeps its bias, and the file tells classes apart."""
    python = os.environ.get(KERAS)
    if not python:
        pytest.skip(f"keras with tensorflow takes 1.6 GB: make test-keras, which sets {KERAS}")
    run("Keras", tmp_path, python)
    model = edgefl.load(tmp_path / "keras.onnx")
    assert_computes(model, tolerance=1e-4)
    assert model.plan.num_trainable == 5 * 3 * 16 + 16 + 16 * 4 + 4
    assert model.plan.loss == "cross_entropy"
