"""3 x 3 convolutions that go through Winograd's transforms, against the plain sums in float64: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from windows import conv, conv_plan, taps

from edgefl.core.trainer import Trainer

# float32's plain sums stay within 1e-6 of the largest number here; the transforms cost a factor of about 3
BOUND = 5e-6
SHAPES = {
    "same": ((4, 6, 33), 40, (1, 1, 1, 1)),
    "valid": ((6, 4, 32), 32, (0, 0, 0, 0)),
    "one tile": ((2, 2, 32), 35, (1, 1, 1, 1)),
    "lopsided": ((4, 4, 32), 32, (0, 2, 2, 0)),
    "full": ((4, 4, 32), 33, (2, 2, 2, 2)),
    "forward alone": ((5, 3, 32), 32, (2, 2, 1, 1)),
    "backward alone": ((4, 4, 32), 32, (1, 1, 2, 2)),
    "many tiles": ((18, 16, 48), 64, (1, 1, 1, 1)),
    "many channels": ((4, 4, 160), 130, (1, 1, 1, 1)),
    "dw of some channels at a time": ((8, 16, 300), 260, (1, 1, 1, 1)),
    "dw of more channels than forward": ((4, 12, 512), 160, (1, 1, 1, 1)),
}


def parts_of(plan, params):
    ends = np.cumsum([p.size for p in plan.params])[:-1]
    return [np.float64(w).reshape(p.shape) for w, p in zip(np.split(params, ends), plan.params, strict=True)]


def near(ours, exact):
    assert np.abs(ours - exact).max() <= BOUND * np.abs(exact).max()


@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients(name):
    shape, out, pads = SHAPES[name]
    plan = conv_plan(shape, (3, 3), out, pads=pads)
    rng = np.random.default_rng(0)
    params = rng.normal(0, 0.2, plan.num_params).astype(np.float32)
    x = rng.normal(0, 1, (5, *shape)).astype(np.float32)
    trainer = Trainer(plan, batch=5)
    front, w, b = parts_of(plan, params)
    hidden = np.float64(x) @ front
    y = conv(plan.nodes[1], hidden, w, b)
    near(trainer.predict(params, x), y)
    targets = rng.normal(0, 1, y.shape).astype(np.float32)
    dy = 2 * (y - targets) / y.size
    top, left, bottom, right = (2 - p for p in pads)
    seen = taps(dy, (3, 3), (1, 1), (top, left, bottom, right))
    dhidden = np.einsum("hwbijo,hwco->bijc", seen, w[::-1, ::-1])
    dw = np.einsum("hwbijc,bijo->hwco", taps(hidden, (3, 3), (1, 1), pads), dy)
    got = parts_of(plan, trainer.gradient(params, x, targets))
    for ours, exact in zip(got, (np.einsum("bijc,bijd->cd", x, dhidden), dw, dy.sum((0, 1, 2))), strict=True):
        near(ours, exact)


def test_a_sample_has_the_same_bits_in_any_batch():
    plan = conv_plan((6, 6, 32), (3, 3), 32, pads=(1, 1, 1, 1))
    rng = np.random.default_rng(1)
    params, x = rng.normal(0, 1, plan.num_params).astype(np.float32), rng.normal(0, 1, (7, 6, 6, 32)).astype(np.float32)
    whole = Trainer(plan, batch=7).predict(params, x)
    assert np.array_equal(whole, Trainer(plan, batch=2).predict(params, x))


def test_the_weights_gradient_has_the_same_bits_with_two_threads():
    plan = conv_plan((8, 8, 300), (3, 3), 260, pads=(1, 1, 1, 1))
    rng = np.random.default_rng(2)
    params = rng.normal(0, 0.2, plan.num_params).astype(np.float32)
    x = rng.normal(0, 1, (6, 8, 8, 300)).astype(np.float32)
    y = rng.normal(0, 1, (6, 8, 8, 260)).astype(np.float32)
    one, two = (Trainer(plan, batch=6, threads=threads).gradient(params, x, y) for threads in (1, 2))
    assert np.array_equal(one, two)


def test_the_transforms_take_no_more_memory_than_the_largest_weights_turned():
    plan = conv_plan((4, 4, 512), (3, 3), 512, pads=(1, 1, 1, 1))
    turned, images = 4 * 9 * 512 * 512, 4 * 4 * 4 * 512
    front = 4 * 512 * 512  # of conv_plan
    assert Trainer(plan, batch=16).arena_bytes <= turned + front + 16 * 8 * images
