"""PyTorch's exporters, old and new, with constants folded and not; and the marks of the tests that need PyTorch."""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path

import pytest

MISSING = importlib.util.find_spec("torch") is None
if MISSING and os.environ.get("EDGEFL_REQUIRE_TORCH") == "1":
    raise RuntimeError("torch is required: pip install torch==2.13.0")
TORCH = [
    pytest.mark.torch,
    pytest.mark.skipif(MISSING, reason="torch is not installed: pip install torch==2.13.0"),
    pytest.mark.filterwarnings("ignore"),
]
EXPORTS = ["folded", "unfolded", "dynamo"]


def export(net, shape: tuple[int, ...] | None, how: str, folder: Path, *, optimize: bool = True) -> bytes:
    import torch

    x = torch.randint(0, 10, (2, 11)) if shape is None else torch.randn(2, *shape)
    names = {"input_names": ["input"], "output_names": ["output"]}
    if how == "dynamo":
        if importlib.util.find_spec("onnxscript") is None:
            pytest.skip("the new exporter needs onnxscript")
        samples = ({0: torch.export.Dim("N")},)
        path = folder / "model.onnx"
        torch.onnx.export(
            net, (x,), path, dynamo=True, optimize=optimize, external_data=False, dynamic_shapes=samples, **names
        )
        return path.read_bytes()
    buffer, folded = io.BytesIO(), how == "folded"
    torch.onnx.export(
        net, (x,), buffer, dynamo=False, do_constant_folding=folded, opset_version=17 if folded else 14,
        training=torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE,
        dynamic_axes={"input": {0: "N"}, "output": {0: "N"}}, **names,
    )  # fmt: skip
    return buffer.getvalue()
