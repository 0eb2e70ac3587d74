"""Rounds with a model that has several inputs, and one that trains two outputs, from files of examples."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import SEVERAL, onnx_model

import edgefl

ONE = SEVERAL.replace(", float[N,1] size", "").replace(", float[10,1] V", "").replace("size = MatMul(c, V)", "")
OPTIONS = {"devices": 4, "rounds": 6, "fraction": 1.0, "epochs": 2, "lr": 0.1}


def examples(n=300):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 6, (n, 2))
    kind = (a[:, 0] + (b[:, 0] > 2) > 0.5).astype(int) + (b[:, 1] == 5)
    return a, b, kind, (a[:, 1] - b[:, 1] / 3)[:, None].astype(np.float32)


def test_rounds_from_a_csv_file(tmp_path):
    a, b, kind, _ = examples()
    rows = [",".join(map(str, [*x, *tokens, label])) for x, tokens, label in zip(a, b, kind, strict=True)]
    path = tmp_path / "d.csv"
    path.write_text("\n".join(["a0,a1,a2,a3,b0,b1,kind", *rows]))
    model = edgefl.load(onnx_model(ONE))
    data = edgefl.data.load(f"csv:{path}?target=kind&kind=classes")
    history = edgefl.simulate(model, data, **OPTIONS)
    first, last = history.rounds[0], history.rounds[-1]
    assert last.loss < first.loss and last.accuracy > 0.6
    assert edgefl.load(model.to_bytes(history.params)).plan == model.plan


@pytest.mark.parametrize("named", [True, False])
def test_rounds_with_two_outputs_from_npz(tmp_path, named):
    a, b, kind, size = examples()
    arrays = (
        {"x.b": b, "x.a": a, "y.size": size, "y.kind": kind}
        if named
        else {"x": np.column_stack([a, b]), "y": np.column_stack([kind, size])}
    )
    np.savez(tmp_path / "d.npz", **arrays)
    model = edgefl.load(onnx_model(SEVERAL), loss={"size": ("mse", 0.5), "kind": "cross_entropy"})
    data = edgefl.data.load(f"npz:{tmp_path / 'd.npz'}")
    history = edgefl.simulate(model, data, **OPTIONS)
    first, last = history.rounds[0], history.rounds[-1]
    assert last.loss < first.loss and last.accuracy > 0.6
