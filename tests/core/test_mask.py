"""Which params are shared: the vectors (S,), and masks that a plan can't have."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import masks
from edgefl.core.mask import Mask
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError, UsageError

# conv, batch norm, dense: trained params first, then the running statistics
PLAN = Plan(
    [1, 4, 4],
    [Node("conv", [0], [0, 1]), Node("batch_norm", [1], [2, 3, 6, 7]), Node("dense", [2], [4, 5])],
    [
        Param("conv.w", [3, 3, 1, 2]), Param("conv.b", [2]), Param("bn.scale", [2]), Param("bn.shift", [2]),
        Param("fc.w", [32, 3]), Param("fc.b", [3]), Param("bn.mean", [2], False), Param("bn.var", [2], False),
    ],
    "cross_entropy", 3, 3,
)  # fmt: skip
VECTOR = np.arange(PLAN.num_params, dtype=np.float32)
HEAD, BN = [4, 5], [2, 3, 6, 7]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [((), []), (["head"], HEAD), (["bn"], BN), (["fc.?"], HEAD), (["bn.*", "fc.b"], [2, 3, 5, 6, 7])],
)
def test_names_globs_and_kinds_mean_params(patterns, found):
    assert masks.personal_params(PLAN, patterns) == found


def test_the_head_of_a_model_whose_bias_is_added_by_an_op_of_its_own_has_both():
    plan = Plan([9], [Node("dense", [0], [0]), Node("dense", [1], [1]), Node("add", [2], [2])],
                [Param("a", [9, 9]), Param("w", [9, 3]), Param("b", [3])], "mse", 3, 3)  # fmt: skip
    assert masks.personal_params(plan, ["head"]) == [1, 2]


@pytest.mark.parametrize(
    ("patterns", "words"),
    [(["fc.weight"], "did you mean 'fc.w"), (["*"], "nothing to share"), (["tail"], "no param"), (["hed"], "'head'")],
)
def test_patterns_that_no_mask_can_be_made_of_are_refused(patterns, words):
    with pytest.raises(UsageError, match=words):
        masks.personal_params(PLAN, patterns)


def test_a_model_without_batch_normalization_has_no_such_params():
    plan = Plan([9], [Node("dense", [0], [0])], [Param("w", [9, 3])], "mse", 1, 1)
    with pytest.raises(UsageError, match="no batch normalization"):
        masks.personal_params(plan, ["bn"])


@pytest.mark.parametrize("personal", [HEAD, BN, [0], [7], [0, 2, 4, 7]])
def test_shared_and_own_coordinates_make_the_whole_vector(personal):
    mask = Mask(PLAN, personal)
    shared, own = mask.shared(VECTOR), mask.own(VECTOR)
    wanted = np.concatenate([np.full(param.size, i in personal) for i, param in enumerate(PLAN.params)])
    assert own.tolist() == VECTOR[wanted].tolist()
    assert shared.tolist() == VECTOR[~wanted].tolist()
    assert (mask.num_shared, mask.num_personal) == (len(shared), len(own))
    assert mask.num_trained == sum(p.size for i, p in enumerate(PLAN.params) if p.trainable and i not in personal)
    assert [param.name for param in mask.tensors] == [p.name for i, p in enumerate(PLAN.params) if i not in personal]
    zeros = np.zeros_like(VECTOR)
    both = mask.with_own(mask.with_shared(zeros, shared), own)
    assert both.tolist() == VECTOR.tolist()
    assert not zeros.any()  # neither changes what it is given


def test_without_personal_params_nothing_is_copied():
    mask = Mask(PLAN)
    assert mask.shared(VECTOR) is VECTOR
    assert mask.num_shared == PLAN.num_params
    assert mask.num_personal == len(mask.own(VECTOR)) == 0


@pytest.mark.parametrize("personal", [[8], [3, 2], [2, 2], [0, 1, 2, 3, 4, 5]])
def test_masks_that_a_plan_cant_have_are_refused(personal):
    with pytest.raises(ModelError, match="personal"):
        Mask(PLAN, personal)
