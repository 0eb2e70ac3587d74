"""Three rounds of every strategy against its paper in float64 (tests/support/strategy_references.py)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import strategy_references as reference
from strategy_references import Reference, Report

from edgefl import codecs, strategies
from edgefl.core.trainer import Trainer
from edgefl.errors import CodecError, StoreError, UsageError
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.settings import TrainSettings
from edgefl.strategies import Site, Strategy, Update
from edgefl.strategies.local_steps import gain, steps_of

P, ROUNDS = 300, 3
TRAIN = TrainSettings(epochs=2, batch_size=10, lr=0.05)


def polynomial(staleness: int) -> float:
    return (1 + staleness) ** -0.5


def hinge(staleness: int) -> float:
    return 1 if staleness <= 1 else 1 / (3 * (staleness - 1) + 1)


CASES: list[tuple[str, dict[str, object], Callable[[], Reference]]] = [
    ("fedavg", {}, lambda: reference.fedavg()),
    ("fedavg", {"server_lr": 0.7}, lambda: reference.fedavg(0.7)),
    ("fedavgm", {"server_lr": 0.7, "momentum": 0.8}, lambda: reference.fedavgm(0.7, 0.8)),
    ("fedadagrad", {}, lambda: reference.adaptive("adagrad", 0.01, 1e-3, 0.0)),
    ("fedadagrad", {"server_lr": 0.1, "tau": 0.1, "beta1": 0.9}, lambda: reference.adaptive("adagrad", 0.1, 0.1, 0.9)),
    ("fedadam", {}, lambda: reference.adaptive("adam", 0.01, 1e-3, 0.9, 0.99)),
    ("fedadam", {"tau": 0.01, "beta2": 0.5}, lambda: reference.adaptive("adam", 0.01, 0.01, 0.9, 0.5)),
    ("fedyogi", {}, lambda: reference.adaptive("yogi", 0.01, 1e-3, 0.9, 0.99)),
    ("fedyogi", {"tau": 0.1, "beta1": 0.0}, lambda: reference.adaptive("yogi", 0.01, 0.1, 0.0, 0.99)),
    ("fednova", {}, lambda: reference.fednova()),
    ("fednova", {"server_lr": 0.7}, lambda: reference.fednova(0.7)),
    ("qfedavg", {"q": 0}, lambda: reference.fedavg()),
    ("qfedavg", {}, lambda: reference.qfedavg(1, 0.05)),
    ("qfedavg", {"q": 0.2}, lambda: reference.qfedavg(0.2, 0.05)),
    ("qfedavg", {"q": 5}, lambda: reference.qfedavg(5, 0.05)),
]
LATE: list[tuple[str, dict[str, object], Callable[[], Reference]]] = [
    ("fedasync", {}, lambda: reference.fedasync(0.6, polynomial)),
    ("fedasync", {"alpha": 1}, lambda: reference.fedasync(1, polynomial)),
    ("fedasync", {"damping": "constant"}, lambda: reference.fedasync(0.6, lambda staleness: 1)),
    ("fedasync", {"damping": "hinge", "a": 3, "b": 1}, lambda: reference.fedasync(0.6, hinge)),
]


def made(name: str, options: dict[str, object], train: TrainSettings = TRAIN) -> Strategy:
    strategy = strategies.get(name, **options)
    strategy.defaults(train)
    strategy.prepare(Site(P, P, reports=9, late_rounds=ROUNDS))
    return strategy


def reports(rng: np.random.Generator, codec: codecs.Codec, stale: tuple[int, ...]) -> list[tuple[Report, Update]]:
    """What devices send, as each side reads it: from 1 to 900 examples, and losses from 0.4 to 2.7."""
    out = []
    for place, staleness in enumerate(stale):
        n, loss = int(rng.integers(1, 900)), float(np.float32(np.exp(rng.uniform(-1, 1))))
        payload = codec.encode(rng.normal(0, 0.03, P).astype(np.float32))
        steps = steps_of(TRAIN, n)
        update = Update(f"dev-{place}", n, codec, payload, staleness, steps=steps, loss=loss)
        out.append((Report(codec.decode(payload, P).astype(np.float64), n, steps, loss, staleness), update))
    return out


def compare(strategy: Strategy, expected: Reference, codec: codecs.Codec, stale: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(3)
    ours = rng.normal(size=P).astype(np.float32)
    theirs = ours.astype(np.float64)
    for number, round_stale in enumerate(stale, start=1):
        both = reports(rng, codec, round_stale)
        strategy.start(ours, number)
        for _, update in both:
            strategy.add(update)
        ours = strategy.finish()
        theirs = expected(theirs, [report for report, _ in both])
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()
    moved = np.abs(theirs - np.random.default_rng(3).normal(size=P)).max()
    assert moved > 1e-3, "the rounds move the params by far more than the tolerance"


@pytest.mark.parametrize("codec", ["raw32", "ecq"])
@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{name}-{options}" for name, options, _ in CASES])
def test_three_rounds_are_those_of_the_paper(case: int, codec: str) -> None:
    name, options, _ = CASES[case]
    compare(made(name, options), CASES[case][2](), codecs.get(codec), [(0,) * 7, (0,) * 3, (0,) * 5])


@pytest.mark.parametrize("codec", ["raw32", "ecq"])
@pytest.mark.parametrize("case", range(len(LATE)), ids=[f"{name}-{options}" for name, options, _ in LATE])
def test_asynchronous_rounds_are_those_of_the_paper(case: int, codec: str) -> None:
    name, options, _ = LATE[case]
    stale = [(0,), (1,), (0,), (2,), (3,), (0, 1, 2)]
    compare(made(name, options), LATE[case][2](), codecs.get(codec), stale)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("pull", [0.0, 0.3])
def test_the_gain_is_the_sum_of_the_weights_of_the_gradients(optimizer: str, momentum: float, pull: float) -> None:
    train = TrainSettings(optimizer=optimizer, momentum=momentum, prox_mu=pull)
    for steps in (1, 2, 7, 60):
        weights = reference.weights_of_gradients(steps, 0.05, momentum, pull, optimizer == "nesterov")
        assert gain(train, 0.05, steps) == pytest.approx(weights.sum(), rel=1e-12)
    assert gain(train, 0.05, 10**9) > 0, "and is there for any number of steps at once"


@pytest.mark.parametrize(
    ("pull", "momentum", "optimizer", "fine"),
    [
        (20.0, 0.0, "sgd", False),  # every second step is back at the round's model
        (25.0, 0.0, "sgd", False),  # and here beyond it, further each time
        (0.1, 0.0, "sgd", True),
        (9.0, 0.0, "sgd", True),
        (5.0, 0.9, "sgd", True),
        (8.0, 0.99, "sgd", False),
        (18.0, 0.9, "nesterov", False),
        (1e-4, 0.99, "sgd", True),
    ],
)
def test_fednova_refuses_a_pull_that_brings_devices_back(
    pull: float, momentum: float, optimizer: str, fine: bool
) -> None:
    """Steps that add up to nothing, which the delta would be divided by."""
    train = TrainSettings(lr=0.1, momentum=momentum, optimizer=optimizer, prox_mu=pull)
    if fine:
        made("fednova", {}, train)
        assert all(gain(train, 0.1, steps) > 0.05 for steps in (*range(1, 2000), 10**6))
        return
    with pytest.raises(UsageError, match=r"lower lr, prox_mu or momentum"):
        made("fednova", {}, train)


@pytest.mark.parametrize("changes", [{"momentum": 0.9}, {"prox_mu": 2.0, "momentum": 0.5, "optimizer": "nesterov"}])
def test_fednova_normalizes_by_the_gain_of_the_local_optimizer(changes: dict[str, object]) -> None:
    train = TrainSettings(epochs=2, batch_size=10, lr=0.05, **changes)

    def size(steps: int) -> float:
        momentum, pull = train.momentum, train.prox_mu
        return reference.weights_of_gradients(steps, 0.05, momentum, pull, train.optimizer == "nesterov").sum()

    stale = [(0,) * 5] * ROUNDS
    compare(made("fednova", {}, train), reference.fednova(size=size), codecs.get("raw32"), stale)


@pytest.mark.parametrize(
    "changes", [{}, {"max_steps": 3}, {"batch_size": "all"}, {"epochs": 3, "batch_size": 7}, {"batch_size": 1000}]
)
def test_the_steps_are_those_that_a_device_takes(changes: dict[str, object]) -> None:
    train = TrainSettings(**changes)
    model = load(zoo.mlp([4, 3]))
    trainer, rng = Trainer(model.plan, batch=32), np.random.default_rng(0)
    for n in (1, 9, 10, 11, 40):
        x, y = rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 3, n)
        found = trainer.fit(
            model.params, x, y, epochs=train.epochs, batch_size=train.batch_size, max_steps=train.max_steps
        )
        assert found.steps == steps_of(train, n)


@pytest.mark.parametrize("steps", [0, 1, 3, 2**32 - 1])
def test_fednova_refuses_steps_that_the_examples_do_not_make(steps: int) -> None:
    """A device that told of one step would count 40 times as much."""
    strategy, raw = made("fednova", {}), codecs.get("raw32")
    payload = raw.encode(np.ones(P, np.float32))
    strategy.start(np.zeros(P, np.float32), 1)
    with pytest.raises(CodecError, match=f"{steps} steps, where 200 examples make 40") as refused:
        strategy.add(Update("a", 200, raw, payload, steps=steps, loss=1.0))
    assert refused.value.code == "steps"
    strategy.add(Update("a", 20, raw, payload, steps=40, loss=1.0, claimed=200))  # its influence was bounded
    assert strategy.finish() == pytest.approx(np.ones(P))


def test_qfedavg_does_not_believe_an_absurd_loss() -> None:
    """From the second round on: a tenfold mean loss counts whole, a millionfold one as that."""
    raw = codecs.get("raw32")

    def second(loss: float) -> np.ndarray:
        strategy = made("qfedavg", {"q": 2})
        for number, losses in ((1, (1.0, 1.0)), (2, (1.0, loss))):
            strategy.start(np.zeros(P, np.float32), number)
            for place, one in enumerate(losses):
                payload = raw.encode(np.full(P, 0.01 * (1 - 2 * place), np.float32))
                strategy.add(Update(f"dev-{place}", 10, raw, payload, steps=2, loss=one))
            out = strategy.finish()
        return out

    assert second(10.0).tobytes() == second(1e6).tobytes() != second(9.0).tobytes()


def test_qfedavg_with_a_large_q_weighs_low_losses_alike_above_and_below_the_line() -> None:
    """Their powers are less than a sum can weigh: the first round is an average, and later ones are the paper's."""
    raw, strategy, expected = codecs.get("raw32"), made("qfedavg", {"q": 16}), reference.qfedavg(16, 0.05)
    losses, deltas = (0.004, 0.003, 0.005), (0.01, -0.02, 0.03)
    for number in (1, 2):
        strategy.start(np.zeros(P, np.float32), number)
        for device, loss, delta in zip("abc", losses, deltas, strict=True):
            payload = raw.encode(np.full(P, delta, np.float32))
            strategy.add(Update(device, 10, raw, payload, steps=2, loss=loss))
        moved = strategy.finish()
        assert np.abs(moved).max() <= 0.03
    told = [Report(np.full(P, np.float32(d)).astype(np.float64), 10, 2, x) for x, d in zip(losses, deltas, strict=True)]
    np.testing.assert_allclose(moved, expected(np.zeros(P), told), rtol=1e-6)


def test_qfedavg_goes_by_the_loss_before_training_where_it_is_known() -> None:
    raw, results = codecs.get("raw32"), []
    for told in ({"loss": 2.0}, {"loss": 0.5, "start_loss": 2.0}, {"loss": 0.5}):
        strategy = made("qfedavg", {"q": 2})
        strategy.start(np.zeros(P, np.float32), 1)
        for device, delta, said in (("a", 0.01, told), ("b", -0.02, {"loss": 1.0})):
            payload = raw.encode(np.full(P, delta, np.float32))
            strategy.add(Update(device, 10, raw, payload, steps=2, **said))
        results.append(strategy.finish().tobytes())
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf")])
def test_qfedavg_refuses_an_update_without_a_loss(loss: float | None) -> None:
    strategy, raw = made("qfedavg", {}), codecs.get("raw32")
    strategy.start(np.zeros(P, np.float32), 1)
    with pytest.raises(CodecError, match="without a loss"):
        strategy.add(Update("a", 10, raw, raw.encode(np.ones(P, np.float32)), steps=2, loss=loss))


@pytest.mark.parametrize(
    ("name", "option", "bad"),
    [
        ("fedadam", "server_lr", 0), ("fedadam", "tau", 0), ("fedadam", "tau", 1e-30), ("fedadam", "beta1", 1),
        ("fedadam", "beta2", -0.1), ("fedyogi", "beta2", "much"), ("fedadagrad", "tau", -1), ("qfedavg", "q", -1),
        ("qfedavg", "q", 17), ("qfedavg", "q", True), ("fedasync", "alpha", 0), ("fedasync", "alpha", 1.1),
        ("fedasync", "damping", "linear"), ("fedasync", "a", -1), ("fedasync", "b", float("nan")),
        ("fednova", "server_lr", float("inf")),
    ],
)  # fmt: skip
def test_absurd_options_are_refused_by_name(name: str, option: str, bad: object) -> None:
    with pytest.raises(UsageError, match=option):
        strategies.get(name, **{option: bad})


def test_running_statistics_move_by_the_mean_whatever_the_server_optimizer() -> None:
    raw = codecs.get("raw32")
    for name in ("fedadagrad", "fedadam", "fedyogi"):
        strategy = strategies.get(name)
        strategy.defaults(TRAIN)
        strategy.prepare(Site(2, 1))
        strategy.start(np.float32([1, 1]), 1)
        strategy.add(Update("a", 5, raw, raw.encode(np.float32([-0.5, -0.25]))))
        moved = strategy.finish()
        assert moved[1] == 0.75 and 0.9 < moved[0] < 1
        assert {key: len(array) for key, array in strategy.state().items()} == {"server.first": 1, "server.second": 1}


def test_fedasync_keeps_no_more_models_than_an_update_may_be_late() -> None:
    raw, strategy = codecs.get("raw32"), strategies.get("fedasync")
    strategy.defaults(TRAIN)
    strategy.prepare(Site(2, 2, late_rounds=2))
    params = np.float32([0, 0])
    for number in range(1, 6):
        strategy.start(params, number)
        strategy.add(Update("a", 5, raw, raw.encode(np.float32([1, 0]))))
        params = strategy.finish()
    assert strategy.state()["combine.bases"].shape == (2, 2)
    strategy.start(params, 6)
    strategy.add(Update("b", 5, raw, raw.encode(np.float32([1, 0])), staleness=9))  # no base of it is left
    assert np.isfinite(strategy.finish()).all()


@pytest.mark.parametrize("bad", [{"combine.bases": np.zeros(3, np.float32)}, {"combine.bases": np.zeros((2, P))},
                                 {"combine.other": np.zeros((2, P), np.float32)},
                                 {"combine.bases": np.zeros((2, P + 1), np.float32)}])  # fmt: skip
def test_a_state_that_is_not_fedasyncs_is_refused(bad: dict[str, np.ndarray]) -> None:
    with pytest.raises(StoreError):
        made("fedasync", {}).restore(bad)


def test_a_state_that_is_not_qfedavgs_is_refused() -> None:
    for bad in ({"combine.loss": np.float32([1])}, {"combine.loss": np.zeros(2)}, {"combine.x": np.zeros(1)}):
        with pytest.raises(StoreError):
            made("qfedavg", {}).restore(bad)
