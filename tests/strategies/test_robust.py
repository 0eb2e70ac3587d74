"""Robust rules: what counts, how often, with which f, and what is refused. test_robust_oracle.py has the sums."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl import codecs, strategies
from edgefl.errors import CodecError, UsageError
from edgefl.federation import make_strategy
from edgefl.settings import Settings
from edgefl.strategies import Site, Update
from edgefl.strategies.mix.bucketing import Bucketing
from edgefl.strategies.rule import Facts

RAW = codecs.get("raw32")
RULES = {name: target for name, target in strategies.STRATEGIES.items() if "robust" in target}
NEEDED = {"monna": {"trusted": "dev-00"}}
RNG = np.random.default_rng(3)
HONEST = (RNG.normal(0.5, 0.2, (12, 300))).astype(np.float32)


def get(name: str, **options):
    return strategies.get(name, **NEEDED.get(name, {}), **options)


def update(device: str, delta, num_examples=7, staleness=0) -> Update:
    return Update(device, num_examples, RAW, RAW.encode(np.float32(delta)), staleness)


def delta_of(strategy, updates) -> np.ndarray:
    strategy.start(np.zeros(300, np.float32), 1)
    for each in updates:
        strategy.add(each)
    return strategy.finish()


def fleet(deltas=HONEST, **options) -> list[Update]:
    return [update(f"dev-{number:02d}", delta, **options) for number, delta in enumerate(deltas)]


@pytest.mark.parametrize("before", ["", "nnm", "bucketing", "clip", "arc+nnm"])
@pytest.mark.parametrize("name", sorted(RULES))
def test_a_few_absurd_updates_move_the_result_little(name: str, before: str) -> None:
    if (name, before) == ("monna", "bucketing"):
        return  # refused, see below
    deltas = np.vstack((HONEST, HONEST[:, ::-1]))
    honest = deltas.mean(axis=0)
    spread = np.linalg.norm(deltas - honest, axis=1).max()
    updates = fleet(deltas)
    updates[3], updates[8] = (update(f"dev-{number:02d}", np.full(300, 1e5)) for number in (3, 8))
    rng = np.random.default_rng(1)
    results = {delta_of(get(name, f=2, before=before), rng.permutation(updates)).tobytes() for _ in range(4)}
    assert len(results) == 1, "the same bits, whichever came first"
    result = np.frombuffer(results.pop(), np.float32)
    assert np.linalg.norm(result - honest) < 2 * spread
    assert np.linalg.norm(delta_of(strategies.get("fedavg"), updates) - honest) > 1000 * spread


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_device_counts_once_whatever_it_claims(name: str) -> None:
    expected = delta_of(get(name, f=2), fleet())
    assert (delta_of(get(name, f=2), fleet(num_examples=2**20)) == expected).all()
    liar = [update("dev-05", HONEST[5], num_examples=2**24)]
    assert (delta_of(get(name, f=2), fleet()[:5] + liar + fleet()[6:]) == expected).all()
    late = [update("dev-05", np.full(300, -9.0), staleness=stale) for stale in (2, 1, 1)]
    assert (delta_of(get(name, f=2), late[:1] + fleet() + late[1:]) == expected).all()


def test_two_updates_of_one_staleness_have_an_order_of_their_own() -> None:
    """They may come when a round in between was abandoned."""
    both = [update("dev-05", np.full(300, 1.0)), update("dev-05", np.full(300, 2.0))]
    one, other = (delta_of(get("krum", f=2), [*fleet(), *pair]) for pair in (both, both[::-1]))
    assert (one == other).all()


def test_f_is_a_number_or_a_share() -> None:
    """Of 12 devices with f = 0.25, or 3, the trimmed mean leaves out 3 at either end."""
    expected = np.sort(HONEST, axis=0)[3:-3].mean(axis=0, dtype=np.float64)
    for f in (3, 0.25, 0.24):
        np.testing.assert_allclose(delta_of(get("trimmed-mean", f=f), fleet()), expected, rtol=1e-6)
    assert delta_of(get("trimmed-mean", f=0), fleet()) == pytest.approx(HONEST.mean(axis=0), rel=1e-6)
    for bad in (-1, 0.5, 1.5, "much", True, 0.0, None):
        with pytest.raises(UsageError, match="f is"):
            get("median", f=bad)


@pytest.mark.parametrize("name", sorted(RULES))
def test_with_too_few_devices_the_largest_f_that_works_is_used(name: str) -> None:
    for count in (1, 2, 3, 5):
        result = delta_of(get(name, f=4), fleet(HONEST[:count]))
        assert np.isfinite(result).all()
        assert np.abs(result).max() <= np.abs(HONEST[:count]).max()


def test_too_few_reports_for_f_are_refused_when_it_is_configured() -> None:
    fewest = {"median": 5, "krum": 7, "bulyan": 11, "mda": 5, "trimmed-mean:before=bucketing": 9}
    for name, reports in fewest.items():
        spec = f"{name}{',' if ':' in name else ':'}f=2"
        for enough in (reports, reports - 1):
            settings = Settings().replace(strategy=spec, min_reports=enough)
            if enough == reports:
                make_strategy(settings)
            else:
                with pytest.raises(UsageError, match=f"a round needs {reports} reports"):
                    make_strategy(settings)
    make_strategy(Settings().replace(strategy="krum:f=0.3"))  # a share follows those that report


def test_all_subsets_are_looked_at_only_where_they_are_few() -> None:
    mda = get("mda", f=4)
    mda.prepare(Site(300, 300, reports=40, spill_bytes=10**6))  # 91,390 subsets; 101,270 of 41
    with pytest.raises(UsageError, match=r"at most 40 devices .* and 41 are expected"):
        mda.prepare(Site(300, 300, reports=41, spill_bytes=10**6))
    mda = get("mda", f=4)
    mda.prepare(Site(1, 1, reports=1))
    mda.start(np.zeros(1, np.float32), 1)
    for number in range(40):
        mda.add(update(f"dev-{number:02d}", [0.0]))
    with pytest.raises(CodecError, match="no more than 40 updates"):
        mda.add(update("dev-40", [0.0]))


def test_monna_is_refused_without_a_trusted_device_and_stands_still_without_its_update() -> None:
    with pytest.raises(UsageError, match="a device that you trust"):
        strategies.get("monna", f=2)
    with pytest.raises(UsageError, match="bucketing"):
        get("monna", f=2, before="bucketing+nnm")
    assert delta_of(get("monna", f=2), fleet()).any()
    assert not delta_of(get("monna", f=2), fleet()[1:]).any()


def test_buckets_hold_each_update_once() -> None:
    gram = HONEST.astype(np.float64) @ HONEST.T
    weights = Bucketing(5).weights(Facts(gram, 2))
    assert weights.shape == (3, 12)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert sorted((weights > 0).sum(axis=1)) == [2, 5, 5]
    assert ((weights > 0).sum(axis=0) == 1).all()
    other = Bucketing(5).weights(Facts(gram * 2, 2))
    assert (other != weights).any(), "nobody knows the groups before all updates are there"


def test_centred_clipping_goes_on_from_the_delta_before() -> None:
    strategy = get("centred-clipping", tau=0.5)
    first = delta_of(strategy, fleet())
    assert np.linalg.norm(first) == pytest.approx(0.5, rel=0.1)
    assert (strategy.state()["combine.center"] == first).all()
    again = get("centred-clipping", tau=0.5)
    again.prepare(Site(300, 300))
    again.restore(strategy.state())
    second = delta_of(strategy, fleet())
    assert np.linalg.norm(second) > 1.5 * np.linalg.norm(first)
    assert (delta_of(again, fleet()) == second).all()


def test_misspelt_steps_and_absurd_options_are_named() -> None:
    for options, why in (
        ({"before": "nnn"}, "did you mean 'nnm'"), ({"before": 3}, "before is 3"), 
        ({"before": "bucketing", "bucket": 0}, "bucket is 0"), ({"before": "clip", "clip_norm": -1.0}, "norm is -1"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            get("median", **options)
    for name, option in (
        ("krum", "neighbours"), ("multi-krum", "m"), ("geometric-median", "nu"), ("geometric-median", "iterations"),
        ("centred-clipping", "tau"), ("centred-clipping", "iterations"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=f"{option} is -1"):
            get(name, **{option: -1})


def test_i16_an_update_of_absurd_scale_is_refused() -> None:
    strategy = get("median", f=1)
    strategy.start(np.zeros(300, np.float32), 1)
    with pytest.raises(CodecError, match="absurd scale"):
        strategy.add(update("dev-00", np.full(300, 1e7)))


def test_i28_a_fifth_of_attackers_cost_a_robust_rule_little_and_a_mean_everything() -> None:
    """Ten devices of digits, two of which optimise their attack against the rule."""

    def accuracy(strategy: str, faults: str) -> float:
        history = edgefl.simulate(
            "mlp:64-32-10", "digits", devices=10, rounds=15, seed=1, strategy=strategy, faults=faults, codec="raw32",
            epochs=3, lr=0.1, downlink="raw32",
        )  # fmt: skip
        return history.final.accuracy

    robust = "trimmed-mean:f=0.2,before=nnm"
    honest = accuracy("fedavg", "")
    assert accuracy(robust, "") > honest - 0.02
    for attack in ("attack:opt-alie:0.2", "attack:opt-ipm:0.2", "attack:sign-flip:0.2"):
        assert accuracy(robust, attack) > honest - 0.05, attack
    for attack in ("attack:opt-alie:0.2", "attack:opt-ipm:0.2"):
        assert accuracy("fedavg", attack) < 0.6, attack
