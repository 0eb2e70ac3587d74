"""The arena: what lives at once and no more, what a limit does to the batch, and no allocation in a step."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import ModelError, UsageError

ROOT = Path(__file__).resolve().parent.parent.parent


def mlp(depth, wide=64, activation="relu"):
    nodes, params = [], []
    for i in range(depth):
        params += [Param(f"layer{i}.w", [wide, wide]), Param(f"layer{i}.b", [wide])]
        nodes.append(Node("dense", [len(nodes)], [2 * i, 2 * i + 1]))
        nodes.append(Node(activation, [len(nodes)]))
    return Plan([wide], nodes, params, "mse", len(nodes), len(nodes))


def normed(wide=8):
    params = [Param("w", [wide, wide]), Param("g", [wide]), Param("b", [wide])]
    params += [Param("m", [wide], False), Param("v", [wide], False)]
    nodes = [Node("dense", [0], [0]), Node("batch_norm", [1], [1, 2, 3, 4], [], [1e-3, 0.9])]
    return Plan([wide], nodes, params, "mse", 2, 2)


# ---- liveness -------------------------------------------------------------------------------------------------


def test_a_deeper_net_costs_its_activations_but_not_their_gradients():
    value = 4 * 64 * 32
    grows = [_core.Net(mlp(depth), 32).arena_bytes for depth in (10, 20, 30)]
    assert grows[1] - grows[0] == grows[2] - grows[1] == 10 * value, "one value a layer: relu is in place"
    assert grows[0] < (10 + 4) * value, "its input, targets and a pair of gradients besides"


def test_values_that_nobody_differentiates_are_not_kept():
    """A chain of tanh needs its outputs; a chain of transposes nothing."""

    def chain(op, ints, count):
        nodes = [Node("dense", [0], [0]), *(Node(op, [i + 1], [], ints) for i in range(count))]
        return _core.Net(Plan([8, 8], nodes, [Param("w", [8, 8])], "mse", len(nodes), len(nodes)), 32).arena_bytes

    assert chain("transpose", [1, 0], 20) == chain("transpose", [1, 0], 4)
    assert chain("tanh", [], 20) > chain("tanh", [], 4) + 10 * 4 * 64 * 32


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_what_a_plan_needs_is_known_beforehand(batch):
    for plan in (mlp(3), normed()):
        full, least, whole = _core.plan_needs(plan, batch)
        assert (full, whole) == (_core.Net(plan, batch).arena_bytes, plan.nodes[1].op == "batch_norm")
        assert _core.Net(plan, batch, least).arena_bytes == least <= full
        with pytest.raises(ModelError, match=f"needs {least} bytes"):
            _core.Net(plan, batch, least - 1)
    with pytest.raises(ModelError, match="no such op"):
        _core.plan_needs(Plan([1], [Node("conv9", [0])], [], "mse", 1, 1), 1)


# ---- freezing -------------------------------------------------------------------------------------------------


def test_a_frozen_prefix_keeps_no_activations():
    plan = mlp(12)
    frozen, order = plan.freeze([f"layer{i}." for i in range(10)])
    assert order == [20, 21, 22, 23, *range(20)]
    assert [p.name for p in frozen.params[:4]] == ["layer10.w", "layer10.b", "layer11.w", "layer11.b"]
    whole, rest, head = (_core.Net(p, 32).arena_bytes for p in (plan, frozen, mlp(2)))
    assert rest < 0.6 * whole
    assert rest <= head + 2 * 4 * 64 * 32, "as much as the head alone, and the prefix's value on its way"


def test_a_frozen_net_trains_the_rest_as_the_whole_would():
    plan = mlp(4, wide=9, activation="tanh")
    frozen, order = plan.freeze(["layer1.w", "layer2"])
    rng = np.random.default_rng(0)
    tensors = [rng.normal(0, 0.5, p.size).astype(np.float32) for p in plan.params]
    params, x, y = np.concatenate(tensors), rng.normal(0, 1, (6, 9)), rng.random((6, 9))
    ends = np.cumsum([p.size for p in plan.params])[:-1]
    expected = np.split(Trainer(plan).gradient(params, x, y), ends)
    frozen_params = np.concatenate([tensors[i] for i in order])
    gradient = Trainer(frozen).gradient(frozen_params, x, y)
    trained = frozen.num_trainable
    assert np.allclose(gradient[:trained], np.concatenate([expected[i] for i in order])[:trained], atol=1e-7)
    assert not gradient[trained:].any()
    delta = Trainer(frozen).fit(frozen_params, x, y, momentum=0.9, weight_decay=0.1, epochs=3).delta
    assert delta[:trained].any() and not delta[trained:].any()


def test_freezing_what_is_not_there_or_everything_is_refused():
    with pytest.raises(UsageError, match="no parameter's name starts with 'layr1': did you mean 'layer1"):
        mlp(3).freeze(["layr1"])
    with pytest.raises(UsageError, match="leave one to train"):
        mlp(3).freeze(["layer"])
    assert mlp(3).freeze([]) == (mlp(3), list(range(6)))


# ---- limits ---------------------------------------------------------------------------------------------------


def test_the_batch_is_halved_until_the_least_fits_and_training_is_the_same():
    plan = mlp(3)
    needs = {batch: _core.plan_needs(plan, batch)[1] for batch in (32, 16, 8, 1)}
    rng = np.random.default_rng(1)
    params, x, y = rng.normal(0, 0.2, plan.num_params), rng.normal(0, 1, (40, 64)), rng.random((40, 64))
    whole = Trainer(plan).fit(params, x, y, batch_size=20, epochs=2).delta
    assert Trainer(plan, max_arena_bytes=needs[32]).batch == 32
    assert Trainer(plan, max_arena_bytes=needs[32] - 1).batch == 16
    small = Trainer(plan, max_arena_bytes=needs[8])
    assert (small.batch, small.arena_bytes) == (8, needs[8])
    assert np.allclose(small.fit(params, x, y, batch_size=20, epochs=2).delta, whole, atol=1e-6)
    assert Trainer(plan, batch=31, max_arena_bytes=needs[1]).batch == 1


def test_a_model_that_never_fits_is_refused_with_what_it_needs():
    needed = _core.plan_needs(mlp(3), 1)[1]
    with pytest.raises(ModelError, match=f"needs {needed} bytes to train, {needed - 1} are allowed: .*smaller model"):
        Trainer(mlp(3), max_arena_bytes=needed - 1)
    with pytest.raises(ModelError, match="smaller model"):
        Trainer(mlp(3), batch=2**24, max_arena_bytes=1)


def test_batch_normalization_is_refused_rather_than_cut():
    plan = normed()
    needed, bigger = _core.plan_needs(plan, 32)[1], _core.plan_needs(plan, 64)[1]
    with pytest.raises(ModelError, match=f"all 32 samples of a batch at once and needs {needed} bytes .*batch_size"):
        Trainer(plan, batch=32, max_arena_bytes=needed - 1)
    trainer = Trainer(plan, batch=32, max_arena_bytes=needed)
    with pytest.raises(ModelError, match=f"all 64 samples of a batch at once and needs {bigger} bytes"):
        trainer.fit(np.ones(plan.num_params), np.zeros((64, 8)), np.zeros((64, 8)), batch_size=64)
    assert trainer.fit(np.ones(plan.num_params), np.zeros((64, 8)), np.zeros((64, 8)), batch_size=32).steps == 2
    assert trainer.batch == 32


def test_without_a_limit_batch_normalization_makes_room():
    trainer = Trainer(normed(), batch=4)
    trainer.fit(np.ones(trainer.plan.num_params), np.zeros((64, 8)), np.zeros((64, 8)), batch_size=16)
    assert trainer.batch == 16


# ---- allocations ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc and GNU ld's --wrap")
def test_a_step_allocates_nothing(tmp_path):
    """A program whose malloc, calloc, realloc and free are counted: as many for 1 step as for 50."""
    sources = [*ROOT.glob("src/*.c"), *ROOT.glob("src/ops/*.c"), *ROOT.glob("src/codecs/*.c")]
    kernels = [ROOT / "src/kernels/dispatch.c", ROOT / "src/kernels/kernels.c"]
    wrapped = [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "realloc", "free")]
    program = tmp_path / "no_allocation"
    subprocess.run(
        ["gcc", "-std=c11", "-O1", f"-I{ROOT / 'src'}", "-DEFL_ISA=baseline", *wrapped,
         ROOT / "tests/sanitize/no_allocation.c", *sources, *kernels, "-lm", "-o", program],
        check=True,
    )  # fmt: skip
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- what frozen layers keep -----------------------------------------------------------------------------------


def convs(depth, activation="relu", floats=()):
    """3x3 convolutions with a bias, each with an activation, and a dense head: biases are what is trained last."""
    nodes, params = [], []
    for i in range(depth):
        params += [Param(f"w{i}", [3, 3, 8, 8]), Param(f"b{i}", [8])]
        nodes.append(Node("conv", [len(nodes)], [2 * i, 2 * i + 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]))
        nodes.append(Node(activation, [len(nodes)], [], [], list(floats)))
    nodes += [Node("flatten", [2 * depth]), Node("dense", [2 * depth + 1], [2 * depth])]
    return Plan([6, 6, 8], nodes, [*params, Param("head", [288, 3])], "cross_entropy", 2 * depth + 2, 2 * depth + 2)


@pytest.mark.parametrize(("activation", "floats"), [("relu", []), ("clip", [0, 0.5])])
def test_biases_alone_are_trained_with_a_bit_an_element(activation, floats):
    plan = convs(20, activation, floats)
    biases, _ = plan.freeze([f"w{i}" for i in range(20)])
    value = 4 * 6 * 6 * 8 * 8
    assert _core.plan_needs(plan, 8)[0] > 20 * value
    assert _core.plan_needs(biases, 8)[0] < (6 + 20 / 32) * value


@pytest.mark.parametrize(("activation", "floats"), [("relu", []), ("clip", [0, 0.5])])
def test_bits_give_the_gradient_that_activations_gave(activation, floats):
    plan = convs(5, activation, floats)
    rng = np.random.default_rng(7)
    tensors = [rng.normal(0, 0.2, p.size).astype(np.float32) for p in plan.params]
    x, y = rng.normal(0, 1, (11, 6, 6, 8)), rng.integers(0, 3, 11)
    ends = np.cumsum([p.size for p in plan.params])[:-1]
    expected = np.split(Trainer(plan).gradient(np.concatenate(tensors), x, y), ends)
    for names in (["w"], ["b", "w0", "w4"], ["w1", "w2", "b3"]):
        frozen, order = plan.freeze(names)
        for limit in (None, _core.plan_needs(frozen, 4)[1]):
            trainer = Trainer(frozen, batch=4, max_arena_bytes=limit)
            gradient = trainer.gradient(np.concatenate([tensors[i] for i in order]), x, y)
            wanted = np.concatenate([expected[i] for i in order])
            assert np.allclose(gradient[: frozen.num_trainable], wanted[: frozen.num_trainable], atol=1e-6)


@pytest.mark.parametrize("size", [1, 7, 16, 31, 32, 33, 50, 100])
def test_bits_of_samples_of_any_size(size):
    """A mean needs no value of relu's, so relu keeps bits; a word of them is full or not."""
    rng = np.random.default_rng(size)
    nodes = [Node("dense", [0], [0]), Node("relu", [1]), Node("mean", [2], [], [0])]
    trainer = Trainer(Plan([5], nodes, [Param("w", [5, size])], "mse", 3, 3), batch=9)
    w, x, y = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((5, size), (9, 5), (9, 1)))
    made = x @ w
    error = np.maximum(made, 0).mean(1, keepdims=True) - y
    wanted = x.T @ ((made > 0) * (2 / 9 * error / size))
    assert np.allclose(trainer.gradient(w.ravel(), x, y.ravel()).reshape(5, size), wanted, atol=1e-6)


def test_a_frozen_scale_is_applied_in_place():
    def scaled(trained):
        nodes, params = [Node("dense", [0], [0])], [Param("w", [64, 64])]
        for i in range(20):
            params.append(Param(f"scale{i}", [64], trained))
            nodes.append(Node("mul", [len(nodes)], [i + 1], [0]))
        return Plan([64], nodes, params, "mse", len(nodes), len(nodes))

    value = 4 * 64 * 32
    assert _core.plan_needs(scaled(True), 32)[0] > 20 * value
    assert _core.plan_needs(scaled(False), 32)[0] < 7 * value
