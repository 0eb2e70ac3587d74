"""What ecq-sparse draws: the mean of its rounding errors, their distribution, and what they depend on."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import codecs
from edgefl.core.plan import Param

N = 2**21
GAUSSIAN = np.random.default_rng(0).normal(size=2**16).astype(np.float32)


def errors(x: np.ndarray, **options) -> np.ndarray:
    """(P,) float64: what is decoded, less `x`; the step is 1."""
    codec = codecs.get("ecq-sparse", step=1.0, **options)
    return codec.decode(codec.encode(x, rms=1.0), len(x)) - x.astype(np.float64)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two vectors (P,), in standard deviations of that of independent ones."""
    return float(np.corrcoef(a, b)[0, 1] * np.sqrt(len(a)))


@pytest.mark.parametrize("value", [0.02, 0.3, 0.5, -1.7, 100.1])
def test_a_coin_is_right_on_average_and_takes_one_of_the_two_levels_around(value):
    x = np.full(N, value, np.float32)
    wrong = errors(x)
    assert abs(wrong.mean()) < 4.5 * wrong.std() / np.sqrt(N)
    share = abs(value) % 1
    assert wrong.std() == pytest.approx(np.sqrt(share * (1 - share)), rel=0.01)
    assert len(np.unique(wrong)) == 2


def test_errors_of_devices_do_not_correlate_unless_delta_and_seed_are_the_same():
    base = errors(GAUSSIAN)
    for other in range(20):
        near = GAUSSIAN.copy()
        near[other] += np.float32(1e-3)
        assert abs(correlation(base, errors(near))) < 4.5
        assert abs(correlation(base, errors(GAUSSIAN, seed=other + 1))) < 4.5
    assert (errors(GAUSSIAN) == base).all()


def test_what_no_symbol_expresses_is_exact_and_what_is_kept_is_rounded_to_the_nearest_float16():
    x = GAUSSIAN[:5000].copy()
    x[7] = 1000.3
    assert errors(x)[7] == 0
    codec = codecs.get("ecq-sparse").for_tensors([Param("w", [50, 80]), Param("b", [1000])])
    assert (codec.decode(codec.encode(x), 5000)[4000:] == x[4000:].astype(np.float16)).all()
