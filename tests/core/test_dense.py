"""The dense op with its weight turned, (O, I): what narrow layers use."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check, fused_equals_buffered

from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import ModelError


def turned(shape: list[int], outputs: int, bias: bool = True, ints: list[int] = [1]) -> Plan:  # noqa: B006
    wide = shape[-1]
    nodes = [Node("dense", [0], [0]), Node("dense", [1], [1, 2] if bias else [1], ints)]
    params = [Param("front", [wide, wide]), Param("w", [outputs, wide]), Param("b", [outputs])]
    return Plan(shape, nodes, params[: 2 + bias], "mse", 2, 2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "outputs"), [([17], 1), ([33], 6), ([3, 16], 10), ([2, 3, 5], 15), ([1], 1)])
def test_values_and_gradients(shape: list[int], outputs: int, bias: bool) -> None:
    plan = turned(shape, outputs, bias)
    check(plan, {})
    fused_equals_buffered(plan)
    fused_equals_buffered(plan, momentum=0.0, weight_decay=0.0, prox_mu=0.0)


def test_it_is_the_same_layer_the_other_way_round() -> None:
    rng = np.random.default_rng(0)
    params = rng.normal(0, 1, 40 * 40 + 7 * 40 + 7).astype(np.float32)
    front, w, b = np.split(params, [1600, 1880])
    straight = Plan(
        [40],
        [Node("dense", [0], [0]), Node("dense", [1], [1, 2])],
        [Param("front", [40, 40]), Param("w", [40, 7]), Param("b", [7])],
        "mse",
        2,
        2,
    )
    x = rng.normal(0, 1, (5, 40)).astype(np.float32)
    other = np.concatenate([front, w.reshape(7, 40).T.ravel(), b])
    np.testing.assert_allclose(
        Trainer(turned([40], 7)).predict(params, x), Trainer(straight).predict(other, x), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("ints", [[0], [2], [1, 1]])
def test_another_attribute_is_refused(ints: list[int]) -> None:
    with pytest.raises(ModelError, match="no attribute but 1"):
        Trainer(turned([4], 2, ints=ints))
