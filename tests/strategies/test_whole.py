"""SCAFFOLD, FedDyn, FedCM and MIFA: the papers' rounds, what fleets do to them, and where they help."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest
import whole_references as reference
from quadratic_fleet import RAW32, TRAINED, Fleet, P, quadratics

from edgefl import auto, codecs, load, simulate, strategies
from edgefl.codecs import Codec
from edgefl.errors import CodecError, StoreError, UsageError
from edgefl.federation import make_manifest, make_strategy
from edgefl.onnx import zoo
from edgefl.settings import Settings, TrainSettings
from edgefl.settings.spec import split
from edgefl.strategies import Site, Strategy, Update
from edgefl.strategies.local_steps import steps_of

DEVICES = quadratics(6)
TRAIN = TrainSettings(epochs=2, batch_size=10, lr=0.05)
ALL = tuple(range(6))
SOME = [ALL, (0, 3, 4), (1, 2), (5, 0, 1, 2), (3,)]


def steps(device):
    return steps_of(TRAIN, device.examples)


CASES = [
    ("scaffold", {}, 0.0, lambda: reference.scaffold(DEVICES, steps, 0.05, 1.0, 0.0)),
    ("scaffold", {"server_lr": 0.5}, 0.6, lambda: reference.scaffold(DEVICES, steps, 0.05, 0.5, 0.6)),
    ("feddyn", {}, 0.0, lambda: reference.feddyn(DEVICES, steps, 0.05, float(np.float32(0.1)))),
    ("feddyn", {"alpha": 0.5}, 0.0, lambda: reference.feddyn(DEVICES, steps, 0.05, 0.5)),
    ("fedcm", {"alpha": 0.25}, 0.0, lambda: reference.fedcm(DEVICES, steps, 0.05, 1.0, 0.25)),
    ("mifa", {"server_lr": 0.5}, 0.0, lambda: reference.mifa(DEVICES, steps, 0.05, 0.5)),
]
IDS = [f"{name}-{options}" for name, options, _, _ in CASES]


@pytest.mark.parametrize("case", range(len(CASES)), ids=IDS)
def test_rounds_with_all_and_with_some_devices_are_those_of_the_paper(case: int) -> None:
    name, options, momentum, made = CASES[case]
    train = TrainSettings(epochs=2, batch_size=10, lr=0.05, momentum=momentum)
    fleet, expected = Fleet(strategies.get(name, **options), DEVICES, train), made()
    theirs = np.zeros(P)
    for asked in SOME:
        fleet.round(asked)
        theirs = expected(theirs, asked)
        assert np.abs(fleet.params - theirs).max() <= 1e-6 * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["scaffold", "feddyn"])
def test_where_the_first_rounds_hear_some_devices_only_it_is_the_paper_too(name: str) -> None:
    made = {
        "scaffold": lambda: reference.scaffold(DEVICES, steps, 0.05, 1.0, 0.0),
        "feddyn": lambda: reference.feddyn(DEVICES, steps, 0.05, 0.5),
    }[name]
    options = {"alpha": 0.5} if name == "feddyn" else {}
    fleet, expected, theirs = Fleet(strategies.get(name, **options), DEVICES, TRAIN), made(), np.zeros(P)
    for asked in [(0, 1), (2, 3), (0, 5), (4,)]:
        fleet.round(asked)
        theirs = expected(theirs, asked)
        assert np.abs(fleet.params - theirs).max() <= 1e-6 * np.abs(theirs).max()


def spec(text: str) -> Codec:
    name, options = split(text)
    return codecs.get(name, **options)


def fit(name: str, codec: str = "raw32", rounds: int = 300, downlink: str = "raw32", **options: float) -> float:
    """How far from the optimum a fleet is after rounds of three of its eight devices."""
    up, down = spec(codec), spec(downlink)
    fleet = Fleet(strategies.get(name, **options), quadratics(8, seed=4), TRAIN, up, down, feedback=not up.lossless)
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        fleet.round(rng.choice(8, 3, replace=False).tolist())
    return fleet.off()


def far() -> float:
    """Of plain averaging, from the same optimum: the mean of the fixed points that all rounds pull to."""
    fleet = Fleet(strategies.get("fedcm", alpha=1.0), quadratics(8, seed=4), TRAIN)  # no momentum: FedAvg, unweighted
    rng = np.random.default_rng(0)
    for _ in range(300):
        fleet.round(rng.choice(8, 3, replace=False).tolist())
    return fleet.off()


def test_scaffold_and_feddyn_reach_the_optimum_of_devices_that_differ_and_averaging_does_not() -> None:
    plain = far()
    assert fit("scaffold") < 1e-3 * plain
    assert fit("feddyn", alpha=0.5) < 1e-3 * plain


@pytest.mark.parametrize("downlink", ["raw32", "ecq:step=0.5"])
def test_scaffold_helps_with_a_lossy_codec_too(downlink: str) -> None:
    """With steps for twelve params."""
    assert fit("scaffold", "ecq:step=1", downlink=downlink) < 0.25 * far()


@pytest.fixture(scope="module")
def digits() -> Callable[[str, float], float]:
    """The mean accuracy of the last ten of forty rounds, over two seeds, with the default codecs. Five of 20 devices
    report in each, and each has two digits."""

    @cache
    def run(name: str, lr: float) -> float:
        found = []
        for seed in (1, 3):
            history = simulate(
                "mlp:64-32-10", "digits", devices=20, rounds=40, partition="shards:2", strategy=name, lr=lr, epochs=5,
                goal=5, over_select=1.0, seed=seed,
            )  # fmt: skip
            found.append(np.mean([record.accuracy for record in history.rounds[-10:]]))
        return float(np.mean(found))

    return run


@pytest.mark.parametrize(("name", "lr"), [("scaffold", 0.05), ("feddyn:alpha=0.1", 0.2)])
def test_scaffold_and_feddyn_help_where_devices_have_two_digits_each(digits, name: str, lr: float) -> None:
    """Each with the best of the learning rates 0.05, 0.1 and 0.2; FedAvg's is 0.2."""
    assert digits(name, lr) > digits("fedavg", 0.2) + 0.02


# What fleets do


def mean_of(fleet: Fleet, count: int) -> np.ndarray:
    controls = [np.frombuffer(slots["control"], "<f4") for slots in fleet.slots.values()]
    return np.asarray(sum(np.float64(control) for control in controls) / count)


@pytest.mark.parametrize("name", ["scaffold", "feddyn"])
def test_what_the_aggregator_keeps_is_the_mean_of_what_devices_keep_whatever_is_lost(name: str) -> None:
    """Updates that are refused, rounds that are abandoned, and a device that comes back after a hundred rounds."""
    fleet, rng = Fleet(strategies.get(name), DEVICES, TRAIN), np.random.default_rng(1)
    fleet.round(ALL)
    for number in range(100):
        asked = rng.choice(5, 3, replace=False).tolist()
        fleet.round(asked, lost=asked[:1] if number % 3 == 0 else (), abandoned=number % 7 == 0)
    fleet.round([5])
    kept = {"scaffold": "control", "feddyn": "mean"}[name]
    ours = fleet.strategy.state()[kept]
    np.testing.assert_allclose(ours, mean_of(fleet, 6), atol=3e-5)


@pytest.mark.parametrize("name", ["feddyn", "mifa"])
def test_a_late_update_moves_what_both_sides_keep_alike(name: str) -> None:
    fleet = Fleet(strategies.get(name), DEVICES, TRAIN)
    fleet.round(ALL)
    for _ in range(5):
        held = {5: fleet.hold(5)}
        fleet.round((0, 1, 2))
        fleet.late((0, 3, 4), held)
    slot, kept, share = {"feddyn": ("control", "mean", 6), "mifa": ("memory", "sum", 1)}[name]
    there = sum(np.frombuffer(slots[slot], "<f4").astype(np.float64) for slots in fleet.slots.values()) / share
    np.testing.assert_allclose(fleet.strategy.state()[kept], there, atol=1e-5)


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "mifa"])
def test_devices_that_come_and_go_for_ever_do_no_lasting_harm(name: str) -> None:
    """A hundred times as many devices as expected, eight at a time: each is replaced after about ten rounds."""
    everyone, rng = quadratics(800, spread=0.5, seed=2), np.random.default_rng(0)
    fleet = Fleet(strategies.get(name, **({"alpha": 0.5} if name == "feddyn" else {})), everyone, TRAIN, expect=8)
    alive, off, sizes = list(range(8)), [], []
    for number in range(792):
        alive[rng.integers(8)] = 8 + number
        fleet.round(rng.choice(alive, 4, replace=False).tolist())
        off.append(fleet.off([everyone[k] for k in alive]))
        kept = fleet.strategy.state()
        sizes.append(np.linalg.norm(kept[{"scaffold": "control", "feddyn": "mean", "mifa": "sum"}[name]]))
    assert np.mean(off[-100:]) < 1.5 * np.mean(off[50:150]), "it gets no worse"
    assert np.mean(sizes[-100:]) < 1.5 * np.mean(sizes[50:150]), "what is kept does not grow"


def test_mifa_counts_devices_that_are_away() -> None:
    """A device whose data nobody else has, and which takes part in one round of ten."""

    def run(name: str) -> float:
        fleet = Fleet(strategies.get(name), quadratics(4, seed=3), TrainSettings(epochs=1, batch_size="all", lr=0.05))
        fleet.round(range(4))
        off = []
        for number in range(1, 400):
            fleet.round(range(4) if number % 10 == 0 else range(3))
            off.append(fleet.off())
        return float(np.mean(off[-100:]))

    monitored = run("mifa")
    plain = Fleet(strategies.get("fedcm", alpha=1.0), quadratics(4, seed=3), TrainSettings(batch_size="all", lr=0.05))
    off = []
    for number in range(400):
        plain.round(range(4) if number % 10 == 0 else range(3))
        off.append(plain.off())
    assert monitored < 0.2 * np.mean(off[-100:])


@pytest.mark.parametrize("codec", ["ecq:step=1", "raw32"])
def test_the_sum_that_mifa_keeps_is_that_of_the_devices_memories(codec: str) -> None:
    fleet = Fleet(strategies.get("mifa"), DEVICES, TRAIN, spec(codec), feedback=False)
    for asked in SOME * 5:
        fleet.round(asked, lost=asked[:1] if len(asked) > 2 else ())
    memories = [np.frombuffer(slots["memory"], "<f4") for slots in fleet.slots.values()]
    np.testing.assert_allclose(fleet.strategy.state()["sum"], sum(memories), atol=1e-5)


# What is refused


def settings(name: str, **changes: object) -> Settings:
    return Settings().replace(strategy=name, expect=10, downlink="raw32", span=1, codec="ecq").replace(**changes)


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("scaffold", {"optimizer": "adam"}, "no fixed gain"),
        ("scaffold", {"clip_norm": 1.0}, "clipped gradients"),
        ("scaffold", {"prox_mu": 0.1}, "FedProx|pull"),
        ("scaffold", {"rounds.mode": "async"}, "its own round"),
        ("scaffold", {"late": "fold"}, "its own round"),
        ("scaffold", {"expect": 0}, "rounds.expect"),
        ("feddyn", {"prox_mu": 0.1}, "alpha is its pull"),
        ("feddyn", {"expect": 0}, "rounds.expect"),
        ("fedcm", {"momentum": 0.9}, "takes the place"),
        ("mifa", {"error_feedback": True}, "a feedback already"),
        ("mifa", {"codec": "ecq-sparse"}, "away from its update"),
        ("scaffold", {"error_feedback": False}, "for good"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_when_it_is_configured(name: str, changes: dict, text: str) -> None:
    make_strategy(settings(name))
    with pytest.raises(UsageError, match=text):
        make_strategy(settings(name, **changes))


@pytest.mark.parametrize(
    ("name", "fraction", "codec", "feedback"),
    [
        ("fedavg", 1.0, "ecq", True), ("fedavg", 0.1, "ecq-sparse", False), ("scaffold", 0.1, "ecq", True),
        ("feddyn", 0.1, "ecq", True), ("mifa", 1.0, "ecq", False), ("mifa", 0.1, "ecq", False),
    ],
)  # fmt: skip
def test_auto_chooses_what_goes_together(name: str, fraction: float, codec: str, feedback: bool) -> None:
    plan = load(zoo.mlp([64, 80, 10])).plan
    asked = Settings().replace(strategy=name, expect=100, fraction=fraction)
    manifest = make_manifest(auto.apply(asked, auto.choose(asked, plan)).replace(span=1), "f", "0" * 16, plan)
    assert (manifest.codec, manifest.error_feedback) == (codec, feedback)


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "fedcm", "mifa"])
def test_steps_that_the_examples_do_not_make_are_refused(name: str) -> None:
    """A device that told of one step would move what is kept forty times as far."""
    fleet = Fleet(strategies.get(name), DEVICES, TRAIN)
    fleet.strategy.start(fleet.params, 1)
    for told in (0, 1, 39, 2**32 - 1):
        with pytest.raises(CodecError, match="where 200 examples make 40"):
            fleet.strategy.add(Update("a", 200, RAW32, RAW32.encode(np.ones(P, np.float32)), steps=told, loss=1.0))
    bounded = Update("a", 20, RAW32, RAW32.encode(np.ones(P, np.float32)), steps=40, loss=1.0, claimed=200)
    fleet.strategy.add(bounded)


def test_an_update_whose_influence_is_bounded_moves_the_model_by_what_is_left() -> None:
    moved = []
    for examples, claimed in ((200, None), (20, 200)):
        fleet = Fleet(strategies.get("scaffold"), DEVICES, TRAIN)
        fleet.strategy.start(fleet.params, 1)
        payload = RAW32.encode(np.ones(P, np.float32))
        fleet.strategy.add(Update("a", examples, RAW32, payload, steps=40, loss=1.0, claimed=claimed))
        moved.append(fleet.strategy.finish())
    np.testing.assert_allclose(moved[1], 0.1 * moved[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "fedcm", "mifa"])
def test_an_update_that_is_refused_for_its_scale_leaves_nothing_behind(name: str) -> None:
    """It has two sums to go into. The weight that is left to it makes it too large for one of them alone."""
    results = []
    for deltas in ((1.0,), (1000.0, 1.0)):
        fleet = Fleet(strategies.get(name), DEVICES, TRAIN)
        fleet.strategy.start(fleet.params, 1)
        for delta in deltas:
            payload, refused = RAW32.encode(np.full(P, delta, np.float32)), delta > 1
            update = Update("a", 70 if refused else 100, RAW32, payload, steps=20, loss=1.0, claimed=100)
            with pytest.raises(CodecError, match="absurd scale") if refused else nullcontext():
                fleet.strategy.add(update)
        results.append((fleet.strategy.finish().tobytes(), fleet.strategy.state()[fleet.strategy.keeps].tobytes()))
    assert results[0] == results[1]


MAKERS: dict[str, Callable[[], Strategy]] = {n: lambda n=n: strategies.get(n) for n in ("scaffold", "feddyn", "mifa")}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "bad",
    [
        {"x": np.zeros(3, np.float32)},
        {"control": np.zeros(P), "mean": np.zeros(P), "sum": np.zeros(P)},
        {key: np.zeros(P + 1, np.float32) for key in ("control", "mean", "sum")},
    ],
    ids=str,
)
def test_a_state_that_is_not_its_own_is_refused(name: str, bad: dict[str, np.ndarray]) -> None:
    made = MAKERS[name]()
    made.defaults(TRAIN)
    made.prepare(Site(P, TRAINED, devices=6))
    with pytest.raises(StoreError):
        made.restore(bad)


@pytest.mark.parametrize(("name", "option", "bad"), [("scaffold", "server_lr", 0), ("feddyn", "alpha", -1),
                                                     ("feddyn", "alpha", "x"), ("fedcm", "alpha", 1.5),
                                                     ("fedcm", "alpha", 0), ("mifa", "server_lr", None)])  # fmt: skip
def test_absurd_options_are_refused_by_name(name: str, option: str, bad: object) -> None:
    with pytest.raises(UsageError, match=option):
        strategies.get(name, **{option: bad})
