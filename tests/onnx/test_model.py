"""edgefl.load, `edgefl inspect`'s numbers and OnnxEvaluator, on models with known answers."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import edgefl
from edgefl.errors import DataError, ModelError
from edgefl.onnx.evaluate import OnnxEvaluator
from edgefl.onnx.summary import describe, summarize


def mlp(*sizes: int, end: str = "Identity") -> onnx.ModelProto:
    """Dense layers with ReLU between them, as torch exports them."""
    rng, last = np.random.default_rng(5), len(sizes) - 2
    lines, weights = [], []
    for at, (inputs, outputs) in enumerate(pairwise(sizes)):
        weights += [(f"w{at}", (outputs, inputs)), (f"b{at}", (outputs,))]
        lines.append(f"h{at} = Gemm<transB=1>(r{at}, w{at}, b{at}) r{at + 1} = {'Relu' if at < last else end}(h{at})")
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N,{sizes[0]}] r0) => (float[N,{sizes[-1]}] r{last + 1})'
        f"{{ {' '.join(lines)} }}"
    )
    for name, shape in weights:
        array = (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def test_model_from_path_bytes_and_proto_are_one(tmp_path):
    proto = mlp(4, 3)
    onnx.save(proto, tmp_path / "m.onnx")
    plans = {
        edgefl.load(source).plan.hash
        for source in (proto, proto.SerializeToString(), tmp_path / "m.onnx", str(tmp_path / "m.onnx"))
    }
    assert len(plans) == 1


def test_params_are_the_files_values_in_plan_order():
    proto = mlp(4, 3)
    model = edgefl.load(proto)
    w, b = (numpy_helper.to_array(t) for t in proto.graph.initializer)
    np.testing.assert_array_equal(model.params, np.concatenate([w.T.ravel(), b]))
    assert model.params.dtype == np.float32
    assert model.state.size == 0
    with pytest.raises(ValueError, match="read-only"):
        model.params[0] = 1
    assert (model.input_name, model.output_names, model.output_shape) == ("r0", ["r1"], (3,))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not an ONNX file"),
        (b"PK\x03\x04 not protobuf at all", "not an ONNX file"),
        (b"\x08\x08", "without a graph"),
    ],
)
def test_file_that_is_no_onnx_is_refused_with_its_path(tmp_path, data, why):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=rf"m\.onnx: .*{why}"):
        edgefl.load(path)


def test_missing_file_and_folder_say_so(tmp_path):
    with pytest.raises(ModelError, match=r"can't read .*none\.onnx: No such file"):
        edgefl.load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="Is a directory"):
        edgefl.load(tmp_path)


def test_file_above_two_gigabytes_is_refused(tmp_path):
    path = tmp_path / "big.onnx"
    with open(path, "wb") as file:
        file.truncate(2**31)  # sparse
    with pytest.raises(ModelError, match="larger than 2 GB"):
        edgefl.load(path)


def test_without_onnx_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['onnx'] = None\nimport edgefl, edgefl.onnx.summary\n"
        "try: edgefl.load(b'x')\nexcept edgefl.EdgeFLError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("install edgefl-toolkit[aggregator]")


def test_summary_agrees_with_hand_counts():
    """784*200+200 + 200*200+200 + 200*10+10 = 199,210 (McMahan et al. 2017, arXiv:1602.05629)."""
    model = edgefl.load(mlp(784, 200, 200, 10, end="Softmax"))
    found = summarize(model, batch=10)
    assert json.loads(json.dumps(found)) == found
    assert (found["num_params"], found["num_trainable"]) == (199_210, 199_210)
    assert found["update_bytes_raw32"] == 796_840
    assert found["input"] == {"name": "r0", "shape": [784], "dtype": "float32"}
    assert found["output"] == {"names": ["r3"], "shape": [10]}
    assert (found["loss"], found["loss_inferred"]) == ("cross_entropy", True)
    assert [n["op"] for n in found["nodes"]] == ["dense", "relu", "dense", "relu", "dense", "softmax"]
    assert [n["num_params"] for n in found["nodes"]] == [157_000, 0, 40_200, 0, 2_010, 0]
    assert [n["output_shape"] for n in found["nodes"]] == [[200], [200], [200], [200], [10], [10]]
    assert [n["trains"] for n in found["nodes"]] == [True, False, True, False, True, False]
    products = [2 * 784 * 200, 2 * 200 * 200, 2 * 200 * 10]
    for node, product in zip(found["nodes"][::2], products, strict=True):
        assert product <= node["flops"] <= product + node["output_shape"][0], "multiply-adds, and the bias"
    assert found["flops"] == sum(n["flops"] for n in found["nodes"])
    assert found["arena_bytes"] == edgefl.Trainer(model.plan, batch=10).arena_bytes


def test_description_shows_the_same_numbers():
    model = edgefl.load(mlp(784, 200, 200, 10))
    text = describe(model, batch=10)
    for part in (
        "'r0' float32 784",
        "199,210, of which 199,210 train",
        "cross_entropy (inferred: 10 outputs, which stand for classes",
        "796,840 bytes",
        f"{summarize(model, 10)['arena_bytes']:,} bytes at batch 10",
        "157,000",
        "w0, b0",
    ):
        assert part in text
    assert "cross_entropy (as `loss` says)" in describe(edgefl.load(mlp(4, 3), loss="cross_entropy"))
    assert "loss    cross_entropy\n" in describe(model.plan)


@pytest.mark.parametrize(
    ("sizes", "end", "loss"),
    [
        ((6, 4), "Identity", None),
        ((6, 5, 4), "Softmax", None),
        ((6, 4), "LogSoftmax", None),
        ((6, 1), "Sigmoid", None),
        ((6, 1), "Identity", "bce"),
        ((6, 2), "Identity", "mse"),
        ((6, 1), "Sigmoid", "mse"),
    ],
)
def test_evaluator_agrees_with_the_trainer(sizes, end, loss):
    model = edgefl.load(mlp(*sizes, end=end), loss=loss)
    rng = np.random.default_rng(6)
    x = rng.normal(size=(1500, 6)).astype(np.float32)  # more than one run of the session
    y = rng.integers(0, 4, 1500) if model.plan.loss == "cross_entropy" else rng.integers(0, 2, (1500, sizes[-1]))
    params = model.params * np.float32(1.5)
    theirs = OnnxEvaluator(model).evaluate(params, x, y)
    ours = edgefl.Trainer(model.plan).evaluate(params, x, y)
    assert theirs.loss == pytest.approx(ours.loss, rel=1e-5)
    assert theirs.accuracy == (None if ours.accuracy is None else pytest.approx(ours.accuracy, abs=1e-9))
    assert theirs.num_examples == ours.num_examples == 1500


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (np.zeros((3, 5)), np.zeros(3, int), "x has shape"),
        (np.zeros((0, 6)), np.zeros(0, int), "x has shape"),
        (np.zeros((3, 6)), np.zeros(2, int), "3 samples but 2 targets"),
        (np.zeros((3, 6)), np.array([0, 1, 4]), "labels run from 0 to 4, the model has classes 0 to 3"),
    ],
)
def test_evaluator_refuses_data_that_does_not_fit(x, y, why):
    model = edgefl.load(mlp(6, 4))
    with pytest.raises(DataError, match=why):
        OnnxEvaluator(model).evaluate(model.params, x, y)


def test_evaluator_refuses_targets_of_another_size():
    model = edgefl.load(mlp(6, 4), loss="mse")
    with pytest.raises(DataError, match=r"targets have shape \(3,\), the model's output \(3, 4\)"):
        OnnxEvaluator(model).evaluate(model.params, np.zeros((3, 6), np.float32), np.zeros(3))


def test_inspect_names_open_axes_and_freezes(shared, capsys):
    from edgefl.cli.main import main

    path = str(shared / "models" / "onnx2c_lstm_k1_b1_r1.onnx")
    assert main(["inspect", path]) == 1
    assert "--dim M1=32" in capsys.readouterr().err
    assert main(["inspect", path, "--dim", "M1=6", "--freeze", "lstm_[WR]", "--loss", "mse", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["input"]["shape"], found["num_params"], found["num_trainable"]) == ([6, 5], 120, 24)
    assert main(["inspect", path, "--dim", "M1=6", "--freeze", "lstm_B.R"]) == 2
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", path, "--dim", "M1"])
    assert "'M1' is not NAME=N" in capsys.readouterr().err
