"""Sparse update: what is trained within an arena, the same for all devices, and nothing else moves."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_files import onnx_model

import edgefl
from edgefl.cli.main import main
from edgefl.errors import UsageError
from edgefl.onnx.sparse import choose, sparse
from edgefl.settings import SparseSettings

BATCH = 8
DEPTH = 6


def deep(norms: bool = False) -> bytes:
    """Convolutions with biases (and norms), each with a ReLU, and a dense layer."""
    lines, weights, value = [], [], "x"
    for i in range(DEPTH):
        wide = 3 if i == 0 else 8
        weights += [f"float[8,{wide},3,3] w{i}", f"float[8] b{i}"]
        lines.append(f"c{i} = Conv<pads=[1,1,1,1]>({value}, w{i}, b{i})")
        value = f"c{i}"
        if norms:
            weights += [f"float[8] {name}{i}" for name in ("gamma", "beta", "mean", "var")]
            lines.append(f"n{i} = BatchNormalization({value}, gamma{i}, beta{i}, mean{i}, var{i})")
            value = f"n{i}"
        lines.append(f"r{i} = Relu({value})")
        value = f"r{i}"
    lines += [f"f = Flatten({value})", "y = Gemm(f, head, offset)"]
    weights += ["float[800,4] head", "float[4] offset"]
    arrays = {f"w{i}": np.random.default_rng(i).normal(0, 0.2, (8, 3 if i == 0 else 8, 3, 3)).astype(np.float32)
              for i in range(DEPTH)}  # fmt: skip
    arrays |= {f"var{i}": np.ones(8, np.float32) for i in range(DEPTH)}
    body = "\n".join(lines)
    text = f"(float[n,3,10,10] x) => (float[n,4] y) <{', '.join(weights)}> {{ {body} }}"
    return onnx_model(text, **arrays).SerializeToString()


@pytest.fixture(scope="module")
def model():
    return edgefl.load(deep(), loss="cross_entropy")


def needs(model):
    return edgefl.Trainer(model.plan, batch=BATCH).arena_bytes


def examples(n=20):
    rng = np.random.default_rng(4)
    return rng.normal(size=(n, 3, 10, 10)).astype(np.float32), rng.integers(0, 4, n)


def budgets(model):
    least = needs(model.compile(model.source, ["head", "offset"]))
    return [round(least + (needs(model) - least) * share) for share in (0, 0.2, 0.5, 0.8)]


def test_the_arena_is_within_the_budget_and_as_told(model):
    counts = []
    for budget in budgets(model):
        choice = choose(model, budget, batch=BATCH)
        made = sparse(model, budget, batch=BATCH)
        assert [param.name for param in made.plan.params if param.trainable] == choice.train
        assert choice.arena_bytes == needs(made) <= budget
        counts.append(len(choice.train))
    assert counts == sorted(counts) and counts[0] < counts[-1] < len(model.plan.params)
    assert len(choose(model, 10**9, batch=BATCH).train) == len(model.plan.params)


def test_freeze_and_channels_give_every_device_the_same_plan(model):
    choice = choose(model, budgets(model)[1], batch=BATCH)
    loaded = edgefl.load(deep(), loss="cross_entropy", freeze=choice.freeze, channels=choice.channels)
    assert choice.channels and loaded.plan == sparse(model, budgets(model)[1], batch=BATCH).plan
    whole = choose(model, budgets(model)[1], batch=BATCH, channels=False)
    assert (
        not whole.channels
        and edgefl.load(deep(), loss="cross_entropy", freeze=whole.freeze).plan
        == sparse(model, budgets(model)[1], batch=BATCH, channels=False).plan
    )


def test_nothing_else_moves_and_the_file_has_what_was_trained(model):
    made = sparse(model, budgets(model)[1], batch=BATCH, channels=False)
    x, y = examples()
    after = made.params + edgefl.Trainer(made.plan, batch=BATCH).fit(made.params, x, y, batch_size=BATCH).delta
    saved = onnx.load_from_string(made.to_bytes(after)).graph.initializer
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(deep()).graph.initializer}
    moved = {tensor.name for tensor in saved if (numpy_helper.to_array(tensor) != before[tensor.name]).any()}
    assert moved == {param.name for param in made.plan.params if param.trainable}
    assert "head" in moved and len(moved) < len(before)


def test_trained_layers_move_as_they_would_in_full_training(model):
    """One step: its gradient is that of full training, where there is one."""
    made = sparse(model, budgets(model)[2], batch=BATCH, channels=False)
    x, y = examples(BATCH)
    whole, part = (dict(zip((param.name for param in m.plan.params), np.split(
        edgefl.Trainer(m.plan).gradient(m.params, x, y), np.cumsum([param.size for param in m.plan.params])[:-1]
    ), strict=True)) for m in (model, made))  # fmt: skip
    for param in made.plan.params:
        expected = whole[param.name] if param.trainable else 0 * whole[param.name]
        np.testing.assert_allclose(part[param.name], expected, atol=1e-6)


def test_examples_say_which_layers_contribute(model):
    x, y = examples()
    gradient = edgefl.Trainer(model.plan).gradient(model.params, x, y)
    starts = np.cumsum([0, *(param.size for param in model.plan.params)])
    gains = {param.name: np.square(gradient[start : start + param.size]).sum()
             for param, start in zip(model.plan.params, starts, strict=False)}  # fmt: skip
    for budget in budgets(model)[1:]:
        told, blind = (choose(model, budget, batch=BATCH, x=a, y=b) for a, b in ((x, y), (None, None)))
        assert sum(gains[name] for name in told.train) >= sum(gains[name] for name in blind.train)


def test_channels_contribute_more_than_whole_weights(model):
    x, y = examples()
    gradient = edgefl.Trainer(model.plan).gradient(model.params, x, y)
    split = np.split(gradient, np.cumsum([param.size for param in model.plan.params])[:-1])
    squares = {
        param.name: np.square(part.reshape(param.shape)) for param, part in zip(model.plan.params, split, strict=True)
    }

    def gain(choice):
        return sum(
            squares[name][..., choice.channels[name], :].sum() if name in choice.channels else squares[name].sum()
            for name in choice.train
        )

    parts = 0
    for budget in budgets(model)[1:]:
        some, whole = (choose(model, budget, batch=BATCH, x=x, y=y, channels=on) for on in (True, False))
        assert gain(some) >= gain(whole)
        for name, channels in some.channels.items():
            best = np.argsort(-squares[name].sum((0, 1, 3)))[: len(channels)]
            assert channels == sorted(best)
            parts += 1
    assert parts


def test_batch_normalization_is_frozen(model):
    normed = edgefl.load(deep(norms=True), loss="cross_entropy")
    budget = needs(normed) // 4
    made = sparse(normed, budget, batch=BATCH)
    assert "batch_norm" not in [node.op for node in made.plan.nodes] and needs(made) <= budget
    assert {"gamma0", "beta5"} <= {*choose(normed, budget, batch=BATCH).freeze}
    x, y = examples()
    assert edgefl.Trainer(made.plan).fit(made.params, x, y).delta.any()


def test_a_budget_below_the_last_layer_is_refused(model):
    least = needs(model.compile(model.source, ["head", "offset"]))
    with pytest.raises(UsageError, match=f"last layer alone needs {least} bytes to train at batch {BATCH}"):
        choose(model, least - 1, batch=BATCH)


def test_inspect_says_what_would_be_chosen(model, tmp_path, capsys):
    file = tmp_path / "deep.onnx"
    file.write_bytes(deep())
    budget = budgets(model)[1]
    arguments = ["inspect", str(file), "--batch", str(BATCH), "--loss", "cross_entropy"]
    assert main([*arguments, "--arena-mb", str(budget / 1e6), "--json"]) == 0
    found, choice = json.loads(capsys.readouterr().out), choose(model, budget, batch=BATCH)
    assert (found["freeze"], found["channels"]) == (choice.freeze, choice.channels)
    assert found["arena_bytes"] == choice.arena_bytes <= budget
    assert main([*arguments, "--arena-mb", str(budget / 1e6)]) == 0
    told = capsys.readouterr().out
    assert told.endswith(f"[sparse]\narena_mb = {budget / 1e6:g}\n")
    x, y = examples()
    np.savez(tmp_path / "public.npz", x=x, y=y)
    public = f"npz:{tmp_path / 'public.npz'}"
    assert main([*arguments, "--arena-mb", str(budget / 1e6), "--data", public]) == 0
    lines = capsys.readouterr().out.partition("[sparse]\n")[2].splitlines()
    assert [line.partition(" = ")[0] for line in lines] == [*SparseSettings.__struct_fields__]
    assert lines[-1].endswith(json.dumps(public))
    for name, channels in choice.channels.items():
        assert f"stays   {name} (8x8x3x3): but for {len(channels)} of 8 input channels" in told
