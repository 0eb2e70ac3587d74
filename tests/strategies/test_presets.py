"""The presets against their papers' formulas, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from strategy_rounds import RAW, make, run, update

from edgefl import codecs, strategies
from edgefl.errors import CodecError, UsageError
from edgefl.settings import TrainSettings
from edgefl.strategies import Site, Update


def test_fedavg_is_the_mean_weighted_by_num_examples():
    # (1·[1, 0] + 3·[-1, 2]) / 4 = [-0.5, 1.5]
    result = run(strategies.get("fedavg"), [10, 20], update([1, 0], 1), update([-1, 2], 3))
    assert result.dtype == np.float32
    assert result.tolist() == [9.5, 21.5]


def test_server_lr_scales_the_mean():
    updates = update([1, 0], 1), update([-1, 2], 3)
    assert run(strategies.get("fedavg", server_lr=2), [10, 20], *updates).tolist() == [9, 23]
    assert run(strategies.get("fedavg", server_lr=0.5), [10, 20], *updates).tolist() == [9.75, 20.75]


def test_one_full_device_gives_its_own_model():
    local = np.float32([0.25, -3, 7])
    assert (run(strategies.get("fedavg"), [1, 1, 1], update(local - 1, 600)) == local).all()


def test_fedsgd_takes_one_step_down_the_pooled_gradient():
    # devices send −g_k: w − 0.5 · (2·[4, 0] + 2·[0, 2]) / 4
    result = run(strategies.get("fedsgd", lr=0.5), [1, 1], update([-4, 0], 2), update([0, -2], 2))
    assert result.tolist() == [0, 0.5]


def test_what_devices_compute():
    train = TrainSettings(lr=0.25)
    assert (
        strategies.get("fedavg").defaults(train) == {"local_mode": "sgd"} == strategies.get("fedavgm").defaults(train)
    )
    assert strategies.get("fedsgd").defaults(TrainSettings()) == {"local_mode": "gradient"}


def test_fedsgd_takes_the_devices_learning_rate_unless_it_has_one():
    for strategy, lr in ((strategies.get("fedsgd"), 0.25), (strategies.get("fedsgd", lr=0.5), 0.5)):
        strategy.defaults(TrainSettings(lr=0.25))
        assert run(strategy, [1], update([-1], 1)).tolist() == [1 - lr]
    with pytest.raises(UsageError, match="has no lr"):
        run(strategies.get("fedsgd"), [1], update([-1], 1))


def test_fedavgm_is_hsus_momentum():
    # v: 4, then 0.5·4 + 2 = 4, then 0.5·4 − 1 = 1; w moves by server_lr · v
    strategy, params = make("fedavgm", server_lr=0.5, momentum=0.5), np.float32([10])
    for delta, expected in ((4, 12), (2, 14), (-1, 14.5)):
        params = run(strategy, params, update([delta], 3))
        assert params.tolist() == [expected]


def test_fedavgm_gives_running_statistics_no_velocity():
    """A variance that kept moving could end below zero."""
    strategy, params = make("fedavgm", momentum=0.5), np.float32([1, 1])
    strategy.prepare(Site(2, 1))
    for _ in range(2):
        params = run(strategy, params, update([-0.5, -0.25], 1))
    assert params.tolist() == [1 - 0.5 - 0.75, 1 - 0.25 - 0.25]
    assert strategy.state()["server.velocity"].tolist() == [-0.75]


def test_without_momentum_fedavgm_is_fedavg():
    rng, plain, other = np.random.default_rng(1), make("fedavg"), make("fedavgm", momentum=0)
    params = np.float32(rng.normal(size=9))
    for number in range(3):
        one = update(rng.normal(size=9), 3 + number)
        params, again = run(plain, params, one), run(other, params, one)
        assert params.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", sorted(strategies.STRATEGIES))
def test_i02_order_and_codec_mix_do_not_matter(name):
    rng, parts = np.random.default_rng(0), 1 + len(make(name).sent_sides)
    updates = [
        update(rng.normal(size=parts * 50), int(rng.integers(1, 1000)), codecs.get(rng.choice(sorted(codecs.CODECS))))
        for _ in range(12)
    ]
    results = {run(make(name), np.zeros(50), *rng.permutation(updates)).tobytes() for _ in range(5)}
    assert len(results) == 1


@pytest.mark.parametrize("name", sorted(strategies.STRATEGIES))
def test_a_round_starts_from_nothing_and_leaves_its_params_alone(name):
    strategy, params = make(name), np.float32([1, 2])
    parts = 1 + len(strategy.sent_sides)
    strategy.start(params, 1)
    strategy.add(update([5, 5] * parts, 9))  # of a round that is abandoned
    params.flags.writeable = False
    again = run(strategy, params, update([1, 1] * parts, 1))
    assert (again == run(make(name), params, update([1, 1] * parts, 1))).all()
    assert params.tolist() == [1, 2]


@pytest.mark.parametrize("name", sorted(strategies.STRATEGIES))
def test_i16_a_refused_update_changes_nothing(name):
    strategy = make(name)
    parts = 1 + len(strategy.sent_sides)
    good, bad = update([1, -1] * parts, 4), Update("b", 2**32, RAW, np.float32([3e38, 0] * parts).tobytes())
    strategy.start(np.float32([0, 0]), 1)
    strategy.add(good)
    for refused in (bad, replace(good, num_examples=0), replace(good, payload=good.payload[:4])):
        with pytest.raises(CodecError):
            strategy.add(refused)
    assert (strategy.finish() == run(make(name), [0, 0], good)).all()


@pytest.mark.parametrize(("name", "option"), [("fedavg", "server_lr"), ("fedsgd", "lr"), ("fedavgm", "server_lr")])
@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "fast", True])
def test_absurd_rates_are_refused_by_name(name, option, bad):
    with pytest.raises(UsageError, match=option):
        strategies.get(name, **{option: bad})


@pytest.mark.parametrize("bad", [1, -0.1, float("nan"), "much", True])
def test_an_absurd_momentum_is_refused_by_name(bad):
    with pytest.raises(UsageError, match="momentum"):
        strategies.get("fedavgm", momentum=bad)


def test_misspelt_strategy_is_named():
    with pytest.raises(UsageError, match="did you mean 'fedavg'"):
        strategies.get("fedavq")


def test_i16_an_update_of_absurd_scale_is_refused_before_it_takes_the_headroom():
    strategy = strategies.get("fedavg")
    strategy.start(np.zeros(2, np.float32), 1)
    raw32 = codecs.get("raw32")
    absurd = raw32.encode(np.full(2, 1e4, np.float32))
    for _ in range(2000):
        with pytest.raises(CodecError, match="absurd scale"):
            strategy.add(Update("dev-a", 10_000, raw32, absurd))
    strategy.add(Update("dev-b", 10, raw32, raw32.encode(np.full(2, 0.5, np.float32))))
    assert strategy.finish().tolist() == [0.5, 0.5]
