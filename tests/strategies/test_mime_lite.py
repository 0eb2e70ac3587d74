"""Mime-lite: the paper's rounds, a second vector in every update, what bounds it, and where it helps."""

from __future__ import annotations

import numpy as np
import pytest
import whole_references as reference
from machines import MANIFEST
from quadratic_fleet import RAW32, TRAINED, Fleet, P, quadratics

from edgefl import codecs, load, simulate, strategies
from edgefl.codecs.stacked import Stacked
from edgefl.core.trainer import Trainer
from edgefl.data import Dataset
from edgefl.device import local
from edgefl.errors import CodecError, StoreError, UsageError
from edgefl.federation import make_manifest, make_strategy
from edgefl.onnx import zoo
from edgefl.settings import Settings, TrainSettings
from edgefl.strategies import Site, Update
from edgefl.strategies.local import LocalRule
from edgefl.strategies.local_steps import steps_of

DEVICES = quadratics(6)
TRAIN = TrainSettings(epochs=2, batch_size=10, lr=0.05)
SOME = [tuple(range(6)), (0, 3, 4), (1, 2), (5, 0, 1, 2), (3,)]


def steps(device):
    return steps_of(TRAIN, device.examples)


# The paper


@pytest.mark.parametrize(
    ("options", "extra"),
    [
        ({"beta": 0.75}, {}),
        ({"beta": 0.5, "server_lr": 0.5}, {}),
        ({"beta": 0.75}, {"weight_decay": 0.125}),
        ({"beta": 0.75}, {"prox_mu": 0.5}),
        ({"beta": 0.0}, {}),
    ],
    ids=str,
)
def test_rounds_with_all_and_with_some_devices_are_those_of_the_paper(options: dict, extra: dict) -> None:
    train = TrainSettings(epochs=2, batch_size=10, lr=0.05, **extra)
    fleet, theirs = Fleet(strategies.get("mime-lite", **options), DEVICES, train), np.zeros(P)
    expected = reference.mime_lite(
        DEVICES, steps, 0.05, options.get("server_lr", 1.0), options["beta"],
        decay=extra.get("weight_decay", 0.0), mu=extra.get("prox_mu", 0.0),
    )  # fmt: skip
    for asked in SOME:
        fleet.round(asked)
        theirs = expected(theirs, asked)
        assert np.abs(fleet.params - theirs).max() <= 1e-6 * np.abs(theirs).max()


RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
DATA = Dataset(X, (X @ [[1.0], [-2.0], [0.5]] + RNG.normal(size=(60, 1))).astype(np.float32))
MODEL = load(zoo.mlp([3, 1], seed=0))
PARTS = np.split(np.arange(60), [10, 35])


def fleet(**options: object):
    """Three devices with 10, 25 and 25 examples, through the core, the codecs and the wire."""
    common = {"devices": 3, "codec": "raw32", "downlink": "raw32", "batch_size": "all", "epochs": 4, "lr": 0.05}
    common |= {"partition": lambda dataset, argument, devices, rng: PARTS, "strategy": "mime-lite:beta=0.75"}
    return simulate(MODEL, DATA, **{**common, "rounds": 3, "seed": 3, **options})


def test_three_rounds_through_the_core_and_the_wire_are_those_of_the_paper() -> None:
    """In float64, of a linear regression whose gradient is written out here."""

    def gradient(w: np.ndarray, part: np.ndarray) -> np.ndarray:
        x, y = np.c_[DATA.x_train[part], np.ones(len(part))].astype(np.float64), DATA.y_train[part, 0]
        return 2 / len(part) * x.T @ (x @ w - y)

    w, m = MODEL.params.astype(np.float64), np.zeros(4)
    for _ in range(3):
        ends = []
        for part in PARTS:
            y = w.copy()
            for _ in range(4):
                y -= 0.05 * (0.25 * gradient(y, part) + 0.75 * m)
            ends.append(y)
        m = 0.75 * m + 0.25 * np.mean([gradient(w, part) for part in PARTS], axis=0)
        w = np.mean(ends, axis=0)
    np.testing.assert_allclose(fleet().params, w, rtol=1e-6, atol=1e-7)


def test_the_gradient_that_goes_up_is_what_the_steps_would_move_by_it() -> None:
    from edgefl.device.holdout import Shares
    from edgefl.device.local.rule import Work

    trainer, train = Trainer(MODEL.plan), TrainSettings(epochs=2, batch_size=10, lr=0.05)
    held = np.zeros((0, 3), np.float32), np.zeros((0, 1), np.float32)
    work = Work(
        trainer, MODEL.params, Shares(DATA.x_train, DATA.y_train, *held), train, 0, 1, load=lambda name: None,
        mask=MANIFEST.mask, sides={"momentum": np.zeros(4, np.float32)},
    )  # fmt: skip
    learned = local.get(LocalRule("mime-lite", {"beta": 0.75})).train(work)
    expected = -0.05 * 12 * 0.25 * trainer.gradient(MODEL.params, DATA.x_train, DATA.y_train)
    assert learned.steps == 12
    np.testing.assert_allclose(learned.sides["gradient"], expected, rtol=1e-6)


# The second vector


def test_both_halves_of_an_update_are_counted_in_bytes_and_have_a_residual() -> None:
    model, data = "mlp:64-80-10", "digits"
    common = {"devices": 4, "rounds": 2, "codec": "ecq", "downlink": "raw32", "seed": 1}
    plain, mime = (simulate(model, data, strategy=name, **common) for name in ("fedavg", "mime-lite"))
    sizes = [run.rounds[0].bytes_up for run in (plain, mime)]
    assert 1.7 < sizes[1] / sizes[0] < 2.3
    manifest = make_manifest(settings(codec="ecq"), "f", "0" * 16, MODEL.plan)
    assert manifest.error_feedback and isinstance(manifest.update_codec, Stacked)
    assert manifest.update_size == 2 * MODEL.plan.num_params


def test_error_feedback_makes_up_for_what_a_codec_drops_of_either_half() -> None:
    """A device whose params never move sends the same gradient each round: the mean of what is decoded gets nearer."""
    coarse = codecs.get("ecq", step=4)
    errors = []
    for feedback in (False, True):
        still = Fleet(strategies.get("mime-lite", beta=0.5), DEVICES, TRAIN, coarse, feedback=feedback)
        sums, exact = [], None
        for number in range(1, 41):
            still.number = number
            update, left = still.trained(0, {"momentum": np.zeros(P, np.float32)})
            still.slots[0] = left
            sums.append(update.delta(2 * P))
        exact = Fleet(strategies.get("mime-lite", beta=0.5), DEVICES, TRAIN).trained(
            0, {"momentum": np.zeros(P, np.float32)}
        )[0].delta(2 * P)  # fmt: skip
        errors.append(np.abs(np.mean(sums, axis=0) - exact)[P:].max())
    assert errors[1] < 0.2 * errors[0]


def test_a_byte_budget_is_shared_between_the_halves() -> None:
    vectors = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    vectors[2000:] *= 1e-3
    codec = Stacked(codecs.get("ecq", step=0.5), 2)
    whole = len(codec.encode(vectors))
    short = codec.within(whole // 2)
    payload = short.encode(vectors)
    assert len(payload) <= whole // 2
    decoded = codec.decode(payload, 4000)
    for half in (slice(0, 2000), slice(2000, 4000)):
        assert np.corrcoef(decoded[half], vectors[half])[0, 1] > 0.8
    with pytest.raises(CodecError):
        codec.within(20).encode(vectors)


def settings(**changes: object) -> Settings:
    return Settings().replace(strategy="mime-lite", expect=10, downlink="raw32", span=1, codec="ecq").replace(**changes)


# What is bounded, and what is refused


def added(*updates: Update) -> strategies.Strategy:
    made = Fleet(strategies.get("mime-lite", beta=0.5), DEVICES, TRAIN).strategy
    made.start(np.zeros(P, np.float32), 1)
    for update in updates:
        made.add(update)
    return made


def ones(examples: int = 200, size: int = 2 * P, **said: object) -> Update:
    return Update("a", examples, RAW32, RAW32.encode(np.ones(size, np.float32)), steps=40, loss=1.0, **said)


def test_an_update_whose_influence_is_bounded_moves_model_and_momentum_by_what_is_left() -> None:
    whole, lowered = added(ones()), added(ones(20, claimed=200))
    np.testing.assert_allclose(lowered.finish(), 0.1 * whole.finish(), rtol=1e-6)
    np.testing.assert_allclose(lowered.state()["momentum"], 0.1 * whole.state()["momentum"], rtol=1e-6)
    assert not whole.state()["momentum"][TRAINED:].any()


def test_admission_measures_both_halves() -> None:
    """A device that reverses its gradient a thousandfold, behind an honest delta, is refused."""

    class Hostile(type(local.get(LocalRule("mime-lite", {"beta": 0.75})))):  # type: ignore[misc]
        def train(self, work):
            learned = super().train(work)
            by = -1000.0 if len(work.shares.x) == 10 else 1.0
            return learned._replace(sides={"gradient": np.float32(by) * learned.sides["gradient"]})

    globals()["Hostile"] = Hostile
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(local.RULES, "mime-lite", f"{__name__}:Hostile")
        history = fleet(rounds=6, **{"admission.influence": 1.5})
    honest = fleet(rounds=6)
    off = np.abs(history.params - honest.params).max()
    assert off < 0.5 * np.abs(honest.params).max()
    assert any("influence" in codes for record in history.rounds for codes in record.refused.values())


@pytest.mark.parametrize(
    "bad",
    [ones(size=P), ones(size=3 * P), ones(100)],
    ids=["a delta alone", "a vector too many", "steps that are not those of its examples"],
)
def test_an_update_of_another_shape_or_of_other_steps_is_refused_and_leaves_nothing(bad: Update) -> None:
    clean, disturbed = added(ones()), added()
    for update in (bad, ones()):
        if update is bad:
            with pytest.raises(CodecError):
                disturbed.add(update)
        else:
            disturbed.add(update)
    assert clean.finish().tobytes() == disturbed.finish().tobytes()
    assert clean.state()["momentum"].tobytes() == disturbed.state()["momentum"].tobytes()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"momentum": 0.9}, "takes the place"),
        ({"optimizer": "adam"}, "takes the place"),
        ({"optimizer": "nesterov", "momentum": 0.9}, "takes the place"),
        ({"clip_norm": 1.0}, "not clipped"),
        ({"rounds.mode": "async"}, "own model"),
        ({"late": "fold"}, "own model"),
        ({"codec": "ecq-sparse"}, "every step"),
        ({"personal.keep": ["head"]}, "whole model"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_when_it_is_configured(changes: dict, text: str) -> None:
    make_strategy(settings())
    with pytest.raises(UsageError, match=text):
        make_strategy(settings(**changes))


@pytest.mark.parametrize(("option", "bad"), [("beta", 1), ("beta", -0.1), ("beta", "x"), ("server_lr", 0)])
def test_absurd_options_are_refused_by_name(option: str, bad: object) -> None:
    with pytest.raises(UsageError, match=option):
        strategies.get("mime-lite", **{option: bad})
    if option == "beta" and not isinstance(bad, str):
        with pytest.raises(UsageError, match="beta"):
            local.get(LocalRule("mime-lite", {"beta": float(bad)}))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [{"x": np.zeros(3, np.float32)}, {"momentum": np.zeros(P)}], ids=str)
def test_a_state_that_is_not_its_own_is_refused(bad: dict) -> None:
    made = strategies.get("mime-lite")
    made.defaults(TRAIN)
    made.prepare(Site(P, TRAINED, devices=6))
    with pytest.raises(StoreError):
        made.restore(bad)


# Fleets


def test_two_runs_give_one_hash_and_attackers_can_be_simulated() -> None:
    one, other = fleet(workers=1), fleet(workers=2)
    assert one.final.model_sha256 == other.final.model_sha256
    attacked = fleet(faults="attack:sign-flip:0.34", rounds=4)
    assert attacked.rounds[-1].state == "committed"
    assert attacked.final.model_sha256 != one.final.model_sha256


def test_it_helps_where_devices_have_two_digits_each() -> None:
    """Five of 20 devices in a round, with lossless codecs and the same learning rate: the mean accuracy of rounds 51 to
    60, over two seeds."""

    def accuracy(name: str) -> float:
        runs = [
            simulate(
                "mlp:64-32-10", "digits", devices=20, rounds=60, partition="shards:2", strategy=name, lr=0.05,
                goal=5, over_select=1.0, seed=seed, codec="raw32", downlink="raw32",
            )
            for seed in (1, 3)
        ]  # fmt: skip
        return float(np.mean([[record.accuracy for record in run.rounds[-10:]] for run in runs]))

    assert accuracy("mime-lite:beta=0.7") > accuracy("fedavg") + 0.03
