"""The shuffle of an epoch."""

from __future__ import annotations

import numpy as np

from edgefl import _core


def test_permutation_is_one_and_depends_on_seed_and_epoch():
    orders = [_core.permutation(1000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all((np.sort(order) == np.arange(1000)).all() for order in orders)
    assert len({order.tobytes() for order in orders}) == 4
    first = [int(_core.permutation(4, seed, 0)[0]) for seed in range(4000)]
    assert np.abs(np.bincount(first, minlength=4) - 1000).max() < 150


def test_permutation_of_nothing_and_of_one():
    assert [_core.permutation(n, 0, 0).tolist() for n in (0, 1)] == [[], [0]]
