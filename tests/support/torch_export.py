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


def export(net, given, how: str, folder: Path, *, optimize: bool = True) -> bytes:
    """`given`: the shape of a sample, None for tokens, or the tensors to export with, one for each input."""
    import torch

    if given is None:
        inputs = (torch.randint(0, 10, (2, 11)),)
    else:
        inputs = (torch.randn(2, *given),) if isinstance(given, tuple) else tuple(tensor[:2] for tensor in given)
    taken = ["input"] if len(inputs) == 1 else [f"input{at}" for at in range(len(inputs))]
    names = {"input_names": taken, "output_names": ["output"]}
    if how == "dynamo":
        if importlib.util.find_spec("onnxscript") is None:
            pytest.skip("the new exporter needs onnxscript")
        dim = torch.export.Dim("N")
        path = folder / "model.onnx"
        samples = tuple({0: dim} for _ in inputs)
        torch.onnx.export(
            net, inputs, path, dynamo=True, optimize=optimize, external_data=False, dynamic_shapes=samples, **names
        )
        return path.read_bytes()
    buffer, folded = io.BytesIO(), how == "folded"
    torch.onnx.export(
        net, inputs, buffer, dynamo=False, do_constant_folding=folded, opset_version=17 if folded else 14,
        training=torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE,
        dynamic_axes={name: {0: "N"} for name in (*taken, "output")}, **names,
    )  # fmt: skip
    return buffer.getvalue()
