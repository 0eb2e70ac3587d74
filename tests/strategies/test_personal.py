"""Strategies whose devices keep something: three rounds against their papers in float64, and what they are good for."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from machines import make_round
from personal_references import BODY, HEAD, SIZES, apfl, descend, ditto, fedper, fedrep

from edgefl import data, simulate
from edgefl.core.mask import Mask
from edgefl.core.params import params_to_bytes
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.device import holdout
from edgefl.device.events import TrainJob
from edgefl.device.slots import Slot
from edgefl.device.training import train_update
from edgefl.errors import UsageError
from edgefl.federation import make_manifest, make_strategy
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import Settings
from edgefl.strategies import Site, Update
from edgefl.strategies.masked import over
from edgefl.strategies.whole.scaffold import Scaffold

MODEL = load(zoo.mlp(list(SIZES), seed=2))
LR, STEPS = 0.3, 2
PLAIN = {
    "codec.name": "raw32", "downlink.name": "raw32", "downlink.span": 1, "train.batch_size": "all", "train.lr": LR,
    "train.epochs": STEPS,
}  # fmt: skip


def examples(n, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, SIZES[0])).astype(np.float32), rng.integers(0, SIZES[2], n)


DEVICES = {name: examples(n, n) for name, n in (("a", 6), ("b", 9), ("c", 14))}


class Fleet:
    """Devices and a strategy, round after round, without messages; every update counts."""

    def __init__(self, strategy, plan=MODEL.plan, params=MODEL.params, devices=DEVICES, **changes):
        settings = Settings().replace(strategy=strategy, **{**PLAIN, **changes})
        self.manifest = make_manifest(settings, "f", "0" * 16, plan)
        self.strategy = over(self.manifest.mask, make_strategy(settings))
        self.strategy.prepare(Site(plan.num_params, plan.num_trainable, len(devices)))
        self.params, self.devices, self.round = params, devices, 0
        self.slots = {name: {} for name in devices}
        self.verdicts, self.headers, self.trainer = {}, {}, Trainer(plan)

    def work(self, name, mode="train"):
        message = make_round(self.round, self.round - 1, params=self.params, manifest=self.manifest, mode=mode)
        job = TrainJob(self.manifest, message, params_to_bytes(self.params), 0)
        return train_update(
            self.trainer, job, name, *self.devices[name], load_slot=self.slots[name].get,
            keep=partial(self.verdicts.__setitem__, name),
        )  # fmt: skip

    def play(self, rounds=3):
        for _ in range(rounds):
            self.round += 1
            self.strategy.start(self.params, self.round)
            for name in self.devices:
                made = self.work(name)
                header = self.headers[name] = UpdateHeader.from_bytes(made.blob)
                payload = memoryview(made.blob)[header.size :]
                self.strategy.add(Update(name, header.num_examples, self.manifest.update_codec, payload))
                kept = {slot: Slot.of(slot, self.manifest, self.round, blob) for slot, blob in made.slots.items()}
                self.slots[name] = kept
            self.params = self.strategy.finish()
        return self

    def own(self, name, skip=0):
        """What the device keeps, as the paper's reference has it."""
        return np.frombuffer(self.slots[name]["personal"].blob, "<f4", offset=skip)


def reference(step, where=slice(None), rounds=3):
    """The model and what each device keeps, if `step` is what a device does, and `where` is averaged."""
    w, own = MODEL.params.astype(np.float64), dict.fromkeys(DEVICES)
    total = sum(len(y) for _, y in DEVICES.values())
    for _ in range(rounds):
        moved = np.zeros_like(w)
        for name, (x, y) in DEVICES.items():
            own[name], delta = step(w, own[name], x.astype(np.float64), y, lr=LR, steps=STEPS)
            moved += len(y) / total * delta
        w[where] += moved[where]
    return w, own


def assert_close(found, wanted):
    assert found.shape == wanted.shape
    assert np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted)


CASES = {
    "fedper": ("fedper", fedper, BODY),
    "fedrep": ("fedrep:head_epochs=3", partial(fedrep, head_steps=3), BODY),
    "ditto": ("ditto:lam=0.5", partial(ditto, lam=0.5), slice(None)),
    "ditto alone": ("ditto:lam=0", partial(ditto, lam=0.0), slice(None)),
    "apfl": ("apfl:alpha=0.4", partial(apfl, alpha=0.4, adapt=True), slice(None)),
    "apfl fixed": ("apfl:alpha=0.25,adapt=0", partial(apfl, alpha=0.25, adapt=False), slice(None)),
}


@pytest.mark.parametrize(("strategy", "step", "where"), CASES.values(), ids=CASES)
def test_three_rounds_are_those_of_the_paper_in_float64(strategy, step, where):
    fleet = Fleet(strategy).play()
    w, own = reference(step, where)
    assert_close(fleet.params, w)
    for name in DEVICES:
        assert_close(fleet.own(name, skip=4 * bool(fleet.manifest.personal)), own[name])


def test_fine_tuning_evaluates_what_a_device_makes_of_the_received_model():
    fleet = Fleet("finetune:epochs=3,lr=0.2", **{"evaluate.holdout": 0.4}).play(2)
    before = fleet.params
    fleet.round += 1
    header = UpdateHeader.from_bytes(fleet.work("c", mode="evaluate").blob)
    x, y = DEVICES["c"]
    shares = holdout.split("c", x, y, 0.4)
    tuned = descend(before.astype(np.float64), shares.x.astype(np.float64), shares.y, lr=0.2, steps=3)
    trainer, verdict = Trainer(MODEL.plan), fleet.verdicts["c"]
    scores = [trainer.evaluate(w, shares.x_held[::2], shares.y_held[::2]) for w in (np.float32(tuned), before)]
    better = (scores[0].accuracy, -scores[0].loss) > (scores[1].accuracy, -scores[1].loss)
    assert verdict.own is better
    assert_close(verdict.params, tuned if better else before)
    told = trainer.evaluate(verdict.params, shares.x_held[1::2], shares.y_held[1::2])
    assert header.personal.loss == pytest.approx(told.loss, rel=1e-6)
    assert header.mode == "evaluate"
    assert not fleet.slots["c"]


def test_with_fedbn_normalization_stays_on_the_device_with_its_statistics():
    plan = Plan(
        [4], [Node("dense", [0], [0, 1]), Node("batch_norm", [1], [2, 3, 6, 7], [], [1e-5, 0.1]),
              Node("dense", [2], [4, 5])],
        [Param("w1", [4, 5]), Param("b1", [5]), Param("scale", [5]), Param("shift", [5]), Param("w2", [5, 3]),
         Param("b2", [3]), Param("mean", [5], False), Param("var", [5], False)],
        "cross_entropy", 3, 3,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    params = rng.uniform(0.2, 0.8, plan.num_params).astype(np.float32)
    shifted = {name: (3 * i + x, y) for i, (name, (x, y)) in enumerate(DEVICES.items())}
    fleet = Fleet("fedbn", plan, params, shifted).play()
    mask = fleet.manifest.mask
    assert mask.own(fleet.params).tobytes() == mask.own(params).tobytes()

    # the same by hand, with the core as the local trainer
    w, own, trainer = params.astype(np.float64), {name: mask.own(params) for name in shifted}, Trainer(plan)
    total = sum(len(y) for _, y in shifted.values())
    for _ in range(3):
        moved = np.zeros(mask.num_shared)
        for name, (x, y) in shifted.items():
            start = mask.with_own(w.astype(np.float32), own[name])
            delta = trainer.fit(start, x, y, epochs=STEPS, batch_size="all", lr=LR).delta
            own[name] = mask.own(start + delta)
            moved += len(y) / total * mask.shared(delta)
        w = mask.with_shared(w, mask.shared(w) + moved)
    assert_close(fleet.params, w)
    for name in shifted:
        assert_close(fleet.own(name, skip=4), own[name].astype(np.float64))
    means = [mask.with_own(params, fleet.own(name, skip=4))[-10:-5] for name in shifted]
    assert np.ptp(means, axis=0).min() > 0.1  # devices whose data are shifted have their own statistics


def test_fedbn_helps_where_each_device_measures_on_a_scale_of_its_own():
    """Digits, to each device under another gain and offset; each strategy with the best lr of 0.05, 0.1, 0.2, 0.4."""
    digits, rng = data.load("digits"), np.random.default_rng(0)
    x, y = digits.x_train.reshape(len(digits.x_train), 64), digits.y_train
    shapes = {"w1": [64, 32], "b1": [32], "scale": [32], "shift": [32], "w2": [32, 10], "b2": [10]}
    state = [Param("mean", [32], False), Param("var", [32], False)]
    nodes = [Node("dense", [0], [0, 1]), Node("batch_norm", [1], [2, 3, 6, 7], [], [1e-5, 0.1]), Node("relu", [2]),
             Node("dense", [3], [4, 5])]  # fmt: skip
    plan = Plan([64], nodes, [*(Param(*item) for item in shapes.items()), *state], "cross_entropy", 4, 4)
    start = {"w1": rng.normal(0, 0.18, 2048), "w2": rng.normal(0, 0.18, 320), "scale": np.ones(32), "var": np.ones(32)}
    params = np.concatenate([start.get(p.name, np.zeros(p.size)) for p in plan.params]).astype(np.float32)
    devices = {}
    for number in range(6):
        gain, offset, own = rng.uniform(0.2, 3.0), rng.normal(0, 1.5), np.arange(number, len(x), 12)
        devices[f"d{number}"] = (gain * x[own] + offset).astype(np.float32), y[own]
    right = {}
    for strategy, lr in (("fedavg", 0.4), ("fedbn", 0.1)):
        changes = {"train.lr": lr, "train.batch_size": 16, "evaluate.holdout": 0.3}
        fleet = Fleet(strategy, plan, params, devices, **changes).play(10)
        fleet.round += 1
        told = [UpdateHeader.from_bytes(fleet.work(name, mode="evaluate").blob) for name in devices]
        right[strategy] = sum(h.num_eval * h.eval_accuracy for h in told) / sum(h.num_eval for h in told)
    assert right["fedbn"] > right["fedavg"] + 0.3, right


def test_a_model_of_its_own_does_not_change_what_is_shared():
    plain = Fleet("fedavg").play()
    for strategy in ("ditto", "finetune"):
        assert Fleet(strategy).play().params.tobytes() == plain.params.tobytes()


REFUSED = {
    "ditto with a mask": ("ditto", {"personal.keep": ["head"]}),
    "apfl with a mask": ("apfl", {"personal.keep": ["head"]}),
    "apfl with momentum": ("apfl", {"train.momentum": 0.9}),
    "apfl with Adam": ("apfl", {"train.optimizer": "adam"}),
    "apfl with clipping": ("apfl", {"train.clip_norm": 1.0}),
    "a gradient with a mask": ("fedsgd", {"personal.keep": ["head"]}),
    "no normalization": ("fedbn", {}),
    "no such alpha": ("apfl:alpha=2", {}),
    "no such adapt": ("apfl:adapt=perhaps", {}),
    "no such lam": ("ditto:lam=-1", {}),
    "no epochs": ("finetune:epochs=0", {}),
    "half an epoch": ("fedrep:head_epochs=0.5", {}),
}


@pytest.mark.parametrize(("strategy", "changes"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused_when_it_is_configured(strategy, changes):
    with pytest.raises(UsageError):
        make_manifest(Settings().replace(strategy=strategy, **{**PLAIN, **changes}), "f", "0" * 16, MODEL.plan)


def test_a_mask_does_not_go_with_side_vectors_of_the_whole_model():
    mask = Mask(MODEL.plan, [2, 3])
    with pytest.raises(UsageError, match=r"side vectors.*leave personal\.keep out"):
        over(mask, Scaffold())


def test_a_mask_goes_with_another_server_optimizer():
    fleet = Fleet("fedavgm:momentum=0.5", **{"personal.keep": ["head"]}).play()
    assert fleet.manifest.mask.own(fleet.params).tobytes() == fleet.manifest.mask.own(MODEL.params).tobytes()
    assert not np.array_equal(fleet.params[BODY], MODEL.params[BODY])
    assert fleet.own("a", skip=4).shape == HEAD.shape


BEST = {"fedper": 0.1, "fedrep": 0.2, "ditto": 0.1, "apfl": 0.1, "finetune": 0.4}  # of 0.05, 0.1, 0.2, 0.4; seed 5


@pytest.mark.parametrize("codec", ["raw32", "auto"])
def test_personal_models_help_where_each_device_sees_two_classes_of_ten(codec):
    """The same devices, rounds and epochs, each strategy with its best lr: at most half of FedAvg's errors."""
    common = {"devices": 20, "rounds": 10, "partition": "shards:2", "holdout": 0.25, "seed": 3, "epochs": 2}
    common |= {"codec": codec, "downlink": codec}
    plain = simulate("mlp:64-32-10", "digits", strategy="fedavg", lr=0.4, **common).final
    for strategy, lr in BEST.items():
        last = simulate("mlp:64-32-10", "digits", strategy=strategy, lr=lr, **common).rounds[-1]
        assert (last.personal, last.own >= 15) == (20, True), strategy
        assert 1 - last.personal_accuracy < (1 - plain.device_accuracy) / 2, strategy
