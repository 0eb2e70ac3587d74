"""Inputs that are the same for every sample: what they may be, and that plan and file compute alike with them."""

from __future__ import annotations

import io
import json

import numpy as np
import onnx
import pytest
from onnx_files import assert_computes, moved, onnx_model, samples

import edgefl
from edgefl.cli.main import main
from edgefl.errors import DataError, ModelError, UsageError
from edgefl.onnx.evaluate import OnnxEvaluator

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
N = "N"


def stateful(op: str, samples: str = N, directions: int = 1, before: str = "", read: str = "h0") -> onnx.ModelProto:
    """x (N, 5, 4), and initial states (D, N, 3) as inputs."""
    d, rows, lstm = directions, 3 * GATES[op], op == "LSTM"
    cell, given = (f", float[{d},{samples},3] c0", ", c0") if lstm else ("", "")
    direction = "bidirectional" if d == 2 else "forward"
    return onnx_model(
        f"(float[{samples},5,4] x, float[{d},{samples},3] h0{cell}) => (float y, float hn)"
        f" <float[{d},{rows},4] W, float[{d},{rows},3] R, float[{d},{2 * rows}] B, int64[3] flat = {{0,5,{3 * d}}}>"
        f"{{ X = Transpose<perm=[1,0,2]>(x) {before}"
        f' Y, hn = {op}<hidden_size=3, direction="{direction}">(X, W, R, B, , {read}{given})'
        f" t = Transpose<perm=[2,0,1,3]>(Y) y = Reshape(t, flat) }}"
    )


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("directions", [1, 2])
def test_initial_states_are_zeros_without_being_told(op, directions):
    model = assert_computes(edgefl.load(stateful(op, directions=directions), loss="mse"))
    assert (model.plan.input_shape, model.plan.inputs) == ([5, 4], edgefl.load(stateful(op), loss="mse").plan.inputs)
    assert [(each.name, each.text, each.inferred) for each in model.constants] == [
        (name, "0", True) for name in (["h0", "c0"] if op == "LSTM" else ["h0"])
    ]
    told = edgefl.load(stateful(op, directions=directions), loss="mse", constants={"h0": 0})
    assert told.plan.hash == model.plan.hash and not told.constants[0].inferred


@pytest.mark.parametrize("op", GATES)
def test_initial_states_that_are_told(op):
    """One number, or a row of numbers: state that is not trained. The file is fed with them."""
    given = {"h0": [0.5, -0.25, 1.0]} | ({"c0": 0.125} if op == "LSTM" else {})
    model = edgefl.load(stateful(op), loss="mse", constants=given)
    assert [param.trainable for param in model.plan.params][:4] == [True] * 4 and model.state.size
    x, after = samples(model, 6), moved(model)
    trainer = edgefl.Trainer(model.plan)
    for params in (model.params, after):
        np.testing.assert_allclose(trainer.predict(params, x), OnnxEvaluator(model).predict(params, x), atol=1e-5)
    zeros = edgefl.load(stateful(op), loss="mse")
    assert np.abs(trainer.predict(model.params, x) - edgefl.Trainer(zeros.plan).predict(zeros.params, x)).max() > 0.01
    saved = onnx.ModelProto.FromString(model.to_bytes(after))
    assert [each.name for each in saved.graph.input] == [
        each.name for each in onnx.ModelProto.FromString(model.source).graph.input
    ]


@pytest.mark.parametrize("op", GATES)
def test_a_fixed_number_of_samples(op):
    model = assert_computes(edgefl.load(stateful(op, samples="2"), loss="mse"))
    assert model.batch == 2


def test_states_that_other_nodes_read_are_told_or_refused():
    proto = stateful("GRU", before="h1 = Exp(h0)", read="h1")
    with pytest.raises(ModelError, match=r"GRU\): its initial state is computed from the input.*constants="):
        edgefl.load(proto, loss="mse")
    model = edgefl.load(proto, loss="mse", constants={"h0": 0})
    x = samples(model, 4)
    ours = edgefl.Trainer(model.plan).predict(model.params, x)
    np.testing.assert_allclose(ours, OnnxEvaluator(model).predict(model.params, x), atol=1e-5)


def test_a_state_for_each_sample_is_no_input_of_the_plan():
    model = edgefl.load(stateful("GRU"), loss="mse")
    x = {"x": np.zeros((4, 5, 4)), "h0": np.ones((4, 3))}
    with pytest.raises(DataError, match="the model has one input"):
        edgefl.Trainer(model.plan).predict(model.params, x)


FLAGS = (
    "(float[N,4] x, float gain, float[2] shift, int64 at) => (float y) <float[4,2] W, float[2,2] V>"
    "{ h = MatMul(x, W) s = Add(h, shift) g = Mul(s, gain) k = Gather<axis=0>(V, at) y = Add(g, k) }"
)


def test_numbers_arrays_and_whole_numbers():
    model = edgefl.load(onnx_model(FLAGS), loss="mse", constants={"gain": 2, "shift": [1, -1], "at": 1.0})
    assert [each.text for each in model.constants] == ["2", "2 numbers", "1"]
    x = samples(model, 5)
    ours = edgefl.Trainer(model.plan).predict(model.params, x)
    np.testing.assert_allclose(ours, OnnxEvaluator(model).predict(model.params, x), atol=1e-5)


@pytest.mark.parametrize(
    ("constants", "says"),
    [
        ({"gian": 2}, "names 'gian', no input of the model.*gain"),
        ({"W": 2}, "names 'W', no input of the model"),
        ({"gain": "two"}, "give a number"),
        ({"gain": np.inf}, "no float32 number"),
        ({"at": 0.5}, "no int64 number"),
        ({"shift": [1, 2, 3]}, r"an array of \(3,\): its shape is \(2,\)"),
        ({"x": 0, "gain": 1, "shift": 0, "at": 0}, "names all inputs"),
        (["gain"], "give the value of each input by its name"),
    ],
)
def test_wrong_constants_are_named(constants, says):
    with pytest.raises(UsageError, match=says):
        edgefl.load(onnx_model(FLAGS), loss="mse", constants=constants)


def test_axes_of_constants_have_sizes_in_dims():
    text = "(float[N,2] x, float[K,L] m) => (float y) <float[2,3] W> { h = MatMul(x, W) y = Add(h, m) }"
    with pytest.raises(UsageError, match="constants names 'm', whose axes L are open"):
        edgefl.load(onnx_model(text), loss="mse", constants={"m": 1})
    model = edgefl.load(onnx_model(text), loss="mse", constants={"m": 1}, dims={"K": 1, "L": 3})
    x = samples(model, 5)
    ours = edgefl.Trainer(model.plan).predict(model.params, x)
    np.testing.assert_allclose(ours, OnnxEvaluator(model).predict(model.params, x), atol=1e-5)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_pytorch_passes_its_states_as_arguments(kind):
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cells, self.out = getattr(torch.nn, kind)(4, 6, num_layers=2, batch_first=True), torch.nn.Linear(6, 3)

        def forward(self, x, h0, c0=None):
            y, _ = self.cells(x, h0 if c0 is None else (h0, c0))
            return self.out(y[:, -1])

    torch.manual_seed(0)
    net, names = Net(), ["x", "h0", *(["c0"] if kind == "LSTM" else [])]
    states = [torch.zeros(2, 3, 6) for _ in names[1:]]
    axes = {name: {0 if name == "x" else 1: "batch"} for name in names}
    buffer = io.BytesIO()
    torch.onnx.export(net, (torch.randn(3, 5, 4), *states), buffer, dynamo=False, input_names=names, dynamic_axes=axes)
    model = edgefl.load(buffer.getvalue(), loss="cross_entropy", constants=dict.fromkeys(names[1:], 0))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5, 4)).astype(np.float32), rng.integers(0, 3, 8)
    result = edgefl.Trainer(model.plan).fit(model.params, x, y, batch_size=8, lr=0.5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    loss = torch.nn.functional.cross_entropy(
        net(torch.tensor(x), *(torch.zeros(2, 8, 6) for _ in states)), torch.tensor(y)
    )
    loss.backward()
    optimizer.step()
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    params = model.params + result.delta
    with torch.no_grad():
        theirs = net(torch.tensor(x), *(torch.zeros(2, 8, 6) for _ in states)).numpy()
    np.testing.assert_allclose(edgefl.Trainer(model.plan).predict(params, x), theirs, atol=1e-5)
    np.testing.assert_allclose(OnnxEvaluator(model).predict(params, x), theirs, atol=1e-5)


def test_adapters_and_a_scaling_keep_them():
    model = edgefl.load(onnx_model(FLAGS), loss="mse", constants={"gain": 2, "shift": 0, "at": 1}, standardize=True)
    assert len(model.constants) == 3
    with_adapters = edgefl.load(stateful("GRU", before="h1 = Exp(h0)", read="h1"), loss="mse", constants={"h0": 0})
    assert with_adapters.compile(with_adapters.source, None).plan.hash == with_adapters.plan.hash


def test_command_and_settings_take_them(tmp_path, capsys):
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_model(FLAGS).SerializeToString())
    words = [f"--constant={pair}" for pair in ("gain=2", "shift=0", "at=1")]
    assert main(["inspect", str(path), "--loss", "mse", *words]) == 0
    assert "input   'gain' is 2 for every sample: as --constant says" in capsys.readouterr().out
    assert main(["inspect", str(path), "--loss", "mse", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["constants"][0] == {"name": "gain", "value": "2", "inferred": False}
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", str(path), "--constant", "gain"])
    assert "'gain' is not NAME=NUMBER" in capsys.readouterr().err

    from edgefl.hosting.config import AggregatorConfig
    from edgefl.settings import files
    from edgefl.settings.reading import choices

    toml = tmp_path / "a.toml"
    toml.write_text(
        f'federation = "f"\nmodel = "{path}"\nloss = "mse"\nconstants = {{ gain = 2, shift = 0, at = 1 }}\n'
        '[mqtt]\nurl = "mqtt://127.0.0.1"\n'
    )
    config = files.load(str(toml), AggregatorConfig)
    assert len(edgefl.load(config.model, config.loss, **choices(config)).constants) == 3


def test_inspect_tells_of_inferred_states(tmp_path, capsys):
    path = tmp_path / "m.onnx"
    path.write_bytes(stateful("LSTM").SerializeToString())
    assert main(["inspect", str(path), "--loss", "mse"]) == 0
    out = capsys.readouterr().out
    assert "input   'c0' is 0 for every sample: an initial state, and zeros unless --constant says otherwise" in out


@pytest.mark.parametrize("through", ["n = Shape(h0)", "u = Transpose<perm=[1,0,2]>(h0) n = Shape(u)", "n = Size(h0)"])
def test_the_number_of_samples_is_not_read_off_a_constant(through):
    """The plan would have that of one sample."""
    before = f"{through} f = Cast<to=1>(n) m = ReduceSum<keepdims=0>(f) h1 = Mul(h0, m)"
    with pytest.raises(ModelError, match=r"it reads the size of an input that is constant"):
        edgefl.load(stateful("GRU", before=before, read="h1"), loss="mse", constants={"h0": 1})
