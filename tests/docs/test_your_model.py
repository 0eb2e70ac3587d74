"""docs/your-model.md: each recipe makes a file of which every weight trains, and that agrees with onnxruntime."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from onnx_files import assert_computes

import edgefl

PAGE = (ROOT / "docs" / "your-model.md").read_text(encoding="utf-8")
KERAS = "EDGEFL_KERAS_PYTHON"  # a Python that has keras, tensorflow and tf2onnx: make test-keras


def recipe(title: str) -> str:
    """The Python blocks of one section."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def run(title: str, folder: Path, python: str = sys.executable) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", recipe(title)], cwd=folder, capture_output=True, text=True, timeout=300,
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
def test_pytorch_by_both_exporters(tmp_path):
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    run("PyTorch", tmp_path)
    for name in ("torch.onnx", "dynamo.onnx"):
        assert trained(tmp_path / name) == ["0.weight", "0.bias", "1.weight", "1.bias", "5.weight", "5.bias"]


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
