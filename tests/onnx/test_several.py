"""Models with several inputs, and several outputs trained at once: against onnxruntime, and one step against torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_files import onnx_model
from torch_export import EXPORTS, TORCH, export

import edgefl
from edgefl.errors import DataError, ModelError, UsageError
from edgefl.onnx.evaluate import OnnxEvaluator

pytestmark = TORCH
N = 9
LOSSES = {"kind": "cross_entropy", "age": ("mse", 0.1)}


def torch_nets():
    import torch
    from torch import nn

    class Mixed(nn.Module):
        """A picture, two fields of tokens with vocabularies of their own, and numbers."""

        def __init__(self):
            super().__init__()
            self.conv, self.words = nn.Conv2d(3, 4, 3, padding=1), nn.Embedding(11, 6)
            self.user, self.mix, self.out = nn.Embedding(5, 3), nn.Linear(4 * 64 + 30 + 3 + 4, 16), nn.Linear(16, 3)

        def forward(self, picture, words, user, numbers):
            parts = [self.conv(picture).relu().flatten(1), self.words(words).flatten(1), self.user(user), numbers]
            return self.out(self.mix(torch.cat(parts, 1)).tanh())

    class Siamese(nn.Module):
        """One tower for both inputs."""

        def __init__(self):
            super().__init__()
            self.tower = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

        def forward(self, a, b):
            return (self.tower(a) * self.tower(b)).sum(1, keepdim=True)

    class DeepSets(nn.Module):
        """A sum over the elements of a set, and what is known of the whole."""

        def __init__(self):
            super().__init__()
            self.phi, self.rho = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8 + 2, 3)

        def forward(self, elements, whole):
            return self.rho(torch.cat([self.phi(elements).sum(1), whole], 1))

    class TwoTower(nn.Module):
        """A token a sample, as recommenders have."""

        def __init__(self):
            super().__init__()
            self.user, self.item = nn.Embedding(7, 5), nn.Embedding(9, 5)
            self.out = nn.Linear(5, 2)

        def forward(self, user, item):
            return self.out(self.user(user) * self.item(item))

    tokens = torch.randint
    return {
        "mixed": (
            Mixed,
            [torch.randn(N, 3, 8, 8), tokens(0, 11, (N, 5)), tokens(0, 5, (N,)), torch.randn(N, 4)],
        ),
        "siamese": (Siamese, [torch.randn(N, 6), torch.randn(N, 6)]),
        "sets": (DeepSets, [torch.randn(N, 5, 4), torch.randn(N, 2)]),
        "towers": (TwoTower, [tokens(0, 7, (N,)), tokens(0, 9, (N,))]),
    }


def stepped(net, loss):
    import torch

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {name: param.detach().numpy() for name, param in net.named_parameters()}


def saved(model, params):
    graph = onnx.ModelProto.FromString(model.to_bytes(params)).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def assert_saved(model, params, expected):
    """Every trained tensor is in the file, under its name or, where an exporter renames it, turned."""
    found = list(saved(model, params).values())
    for name, wanted in expected.items():
        fits = [
            np.allclose(turn, wanted, rtol=0, atol=1e-4)
            for array in found
            for turn in (array, array.T)
            if turn.shape == wanted.shape
        ]
        assert any(fits), name


@pytest.mark.parametrize("how", EXPORTS)
@pytest.mark.parametrize("name", ["mixed", "siamese", "sets", "towers"])
def test_one_step_is_that_of_torch(name, how, tmp_path):
    import torch

    torch.manual_seed(5)
    make, given = torch_nets()[name]
    net = make().eval()
    model = edgefl.load(export(net, given, how, tmp_path))
    names = [each.name for each in model.plan.inputs]
    x = dict(zip(names, (tensor.numpy() for tensor in given), strict=True))
    trainer = edgefl.Trainer(model.plan)
    output = net(*given)
    np.testing.assert_allclose(trainer.predict(model.params, x), output.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(OnnxEvaluator(model).predict(model.params, x), output.detach().numpy(), atol=1e-5)
    if model.plan.loss == "mse":
        y = torch.randn(N, 1)
        loss = torch.nn.functional.mse_loss(output, y)
    else:
        y = torch.randint(0, output.shape[1], (N,))
        loss = torch.nn.functional.cross_entropy(output, y)
    result = trainer.fit(model.params, x, y.numpy(), batch_size="all", lr=0.1)
    assert result.loss == pytest.approx(loss.item(), abs=1e-5)
    assert_saved(model, model.params + result.delta, stepped(net, loss))


def two_heads():
    import torch
    from torch import nn

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.kind, self.age = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

        def forward(self, x):
            h = self.trunk(x).relu()
            return self.kind(h).softmax(1), self.age(h)

    torch.manual_seed(3)
    return Heads().eval()


def exported_heads(net):
    import io

    import torch

    buffer = io.BytesIO()
    names = {"input_names": ["x"], "output_names": ["kind", "age"]}
    axes = {name: {0: "N"} for name in ("x", "kind", "age")}
    torch.onnx.export(net, (torch.randn(2, 6),), buffer, dynamo=False, dynamic_axes=axes, **names)
    return buffer.getvalue()


def test_two_heads_are_trained_at_once():
    import torch

    net = two_heads()
    file = exported_heads(net)
    with pytest.raises(ModelError, match=r"no output depends on all weights .*loss=\{'kind': ..., 'age': ...\}"):
        edgefl.load(file)
    model = edgefl.load(file, loss=LOSSES)
    assert edgefl.load(file, loss="kind=cross_entropy, age=mse:0.1").plan == model.plan
    assert model.losses == "kind=cross_entropy, age=mse:0.1"
    assert model.loss_line == "cross_entropy of kind + 0.1 mse of age (as `loss` says)"
    rng = np.random.default_rng(0)
    x, kind, age = rng.normal(size=(N, 6)).astype("f"), rng.integers(0, 3, N), rng.normal(size=(N, 2)).astype("f")
    y = {"age": age, "kind": kind}
    trainer, evaluator = edgefl.Trainer(model.plan), OnnxEvaluator(model)
    outputs = trainer.by_output(trainer.predict(model.params, x))
    theirs = net(torch.tensor(x))
    for ours, wanted in zip(outputs.values(), theirs, strict=True):
        np.testing.assert_allclose(ours, wanted.detach().numpy(), atol=1e-5)
    loss = torch.nn.functional.nll_loss(theirs[0].log(), torch.tensor(kind))
    loss = loss + 0.1 * torch.nn.functional.mse_loss(theirs[1], torch.tensor(age))
    result = trainer.fit(model.params, x, y, batch_size="all", lr=0.1)
    assert result.loss == pytest.approx(loss.item(), abs=1e-5)
    assert_saved(model, model.params + result.delta, stepped(net, loss))
    packed = np.column_stack([kind, age]).astype("f")
    again = trainer.fit(model.params, x, packed, batch_size="all", lr=0.1)
    assert (again.delta == result.delta).all(), "columns are what a dict is packed to"
    a, b = trainer.evaluate(model.params, x, y), evaluator.evaluate(model.params, x, y)
    assert (a.loss, a.accuracy) == (pytest.approx(b.loss, abs=1e-5), b.accuracy)
    assert a.accuracy == np.mean(outputs["kind"].argmax(1) == kind)


def test_fused_and_buffered_training_of_two_heads_agree():
    model = edgefl.load(exported_heads(two_heads()), loss=LOSSES)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), {"kind": rng.integers(0, 3, 40), "age": rng.normal(size=(40, 2))}
    whole = edgefl.Trainer(model.plan, batch=32).fit(model.params, x, y, batch_size=20, epochs=3)
    pieces = edgefl.Trainer(model.plan, batch=7).fit(model.params, x, y, batch_size=20, epochs=3)
    np.testing.assert_allclose(whole.delta, pieces.delta, atol=1e-6)
    assert whole.loss == pytest.approx(pieces.loss, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        ({"kind": "cross_entropy"}, "do not depend on age"),
        ({"kinds": "mse"}, "'kinds', no output that can be trained.*kind"),
        ({"kind": "entropy", "age": "mse"}, "unknown loss 'entropy' of output 'kind'"),
        ({"kind": ("mse", -1), "age": "mse"}, "weight -1"),
        ({}, "names 0 outputs"),
        ("kind=mse, kind=l1", "for each output"),
        ("kind=mse:x", "'x' is no number"),
        (["mse"], "give its name, or a dict"),
    ],
)
def test_wrong_losses_are_named(loss, says):
    with pytest.raises(UsageError, match=says):
        edgefl.load(exported_heads(two_heads()), loss=loss)


def test_one_of_two_heads_is_trained_if_the_rest_is_frozen():
    model = edgefl.load(exported_heads(two_heads()), loss={"age": "mse"}, freeze=["kind"])
    assert model.plan.losses is not True and not model.plan.losses and model.output_shape == (2,)
    assert model.losses == "age=mse"
    again = edgefl.load(model.to_bytes(), loss=model.losses, freeze=["kind"])
    assert (again.plan.hash, again.losses) == (model.plan.hash, model.losses)


PAIR = """(float[N,4] a, int64[N,3] b) => (float[N,2] y) <float[5,2] E, float[10,2] W>
    { e = Gather(E, b) axes = Constant<value_ints = [-1, 6]> () f = Reshape(e, axes) c = Concat<axis = 1>(a, f)
      y = MatMul(c, W) }"""


def pair():
    model = edgefl.load(onnx_model(PAIR), loss="mse")
    rng = np.random.default_rng(1)
    return model, edgefl.Trainer(model.plan), {"a": rng.normal(size=(N, 4)), "b": rng.integers(0, 5, (N, 3))}


def test_inputs_are_a_dict_a_sequence_or_a_row():
    model, trainer, x = pair()
    assert model.plan.input_shape == [7] and [each.dtype for each in model.plan.inputs] == ["float32", "int64"]
    row = np.column_stack([x["a"], x["b"]])
    expected = trainer.predict(model.params, x)
    for given in (list(x.values()), dict(reversed(x.items())), row, row.astype(np.float32)):
        assert (trainer.predict(model.params, given) == expected).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"b": np.full((N, 3), 5)}, r"token 5 of sample 0 is not one of 0\.\.4"),
        ({"b": np.full((N, 3), 0.5)}, r"x\['b'\] is float64, the model takes integer tokens"),
        ({"b": np.zeros((N, 4), int)}, r"x\['b'\] has shape \(9, 4\)"),
        ({"b": np.zeros((2, 3), int)}, "have 2, 9 samples"),
        ({"a": np.full((N, 4), np.nan)}, "NaN"),
        ({"c": np.zeros(N)}, r"keys 'a', 'b', 'c'.*inputs are a, b"),
    ],
)
def test_what_does_not_fit_an_input_is_named(change, says):
    model, trainer, x = pair()
    with pytest.raises(DataError, match=says):
        trainer.predict(model.params, x | change)


def test_numbers_beside_tokens_may_be_any():
    model, trainer, x = pair()
    trainer.predict(model.params, x | {"a": np.full((N, 4), -1e6)})
    row = np.column_stack([x["a"], x["b"]])
    row[3, 5] = 4.5
    with pytest.raises(DataError, match=r"token 4\.5 of sample 3"):
        trainer.predict(model.params, row)


def test_a_dict_needs_several_inputs():
    model = edgefl.load(onnx_model("(float[N,6] x) => (float[N,3] y) <float[6,3] W> { y = MatMul(x, W) }"))
    with pytest.raises(DataError, match="the model has one input"):
        edgefl.Trainer(model.plan).predict(model.params, {"x": np.zeros((2, 6))})


def test_a_plan_with_one_input_says_nothing_new():
    model = edgefl.load(onnx_model("(float[N,6] x) => (float[N,3] y) <float[6,3] W> { y = MatMul(x, W) }"))
    assert model.plan.to_bytes() == (
        b'{"input_shape":[6],"nodes":[["dense",[0],[0],[],[]]],"params":[["W",[6,3],true]],"loss":"cross_entropy",'
        b'"loss_input":1,"output":1,"input_dtype":"float32","version":1}'
    )


def test_the_losses_of_one_named_output_name_it():
    text = (
        "(float[N,4] x) => (float[N,3] a, float[N,3] b) <float[4,3] W, float[3,3] V> { a = MatMul(x, W) b = Relu(a) }"
    )
    model = edgefl.load(onnx_model(text), loss={"b": "mse"})
    assert model.losses == "b=mse"
    assert edgefl.load(model.source, loss=model.losses).plan == model.plan
    assert edgefl.load(model.source, loss="mse").plan != model.plan
    assert edgefl.load(model.source, loss="mse").losses == "mse"
