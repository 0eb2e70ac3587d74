"""Params that devices keep: updates have the shared ones alone, and the others never change at the aggregator."""

from __future__ import annotations

import random

import numpy as np
import pytest
from edgefl_broker import check
from machines import PARAMS, PLAN, TOPICS, commit_of, feed, last, make_manifest, make_round, status, update_parts

from edgefl import codecs, simulate, strategies
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.core.params import params_to_bytes
from edgefl.core.trainer import Trainer
from edgefl.device.events import TrainJob
from edgefl.device.training import train_update
from edgefl.errors import ProtocolError, UsageError
from edgefl.federation import make_manifest as manifest_of
from edgefl.hosting.config import AggregatorConfig
from edgefl.machine import Connected
from edgefl.onnx.load import load
from edgefl.onnx.zoo import mlp
from edgefl.protocol.inbox import Receipt
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import decode, encode
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import RoundSettings, Settings, files
from edgefl.strategies.masked import over

PERSONAL = make_manifest(personal=[1], requires=["personal"])  # the bias; the weight's 990 coordinates are shared
SHARED, OWN = slice(0, 990), slice(990, 1000)


def open_round(name="fedavg", *devices, **config):
    settings = RoundSettings(**{"deadline_s": 60.0, "min_reports": 1, **config})
    strategy = over(PERSONAL.mask, strategies.get(name))
    coordinator = RoundCoordinator(PERSONAL, settings, strategy, PARAMS, rng=random.Random(0))
    feed(coordinator, *map(status, devices or "a"), Connected())
    return coordinator


def update(length):
    delta = np.full(length, 0.5, np.float32)
    return UpdateHeader(5, 1, 0.5, 10, 100).to_bytes() + codecs.get("raw32").encode(delta)


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm"])
def test_an_update_moves_the_shared_params_and_no_other_one(strategy):
    out = feed(open_round(strategy), *update_parts(blob=update(990)))
    params, record = commit_of(out).params, commit_of(out).record
    assert params[SHARED].tolist() == (PARAMS[SHARED] + np.float32(0.5)).tolist()
    assert params[OWN].tobytes() == PARAMS[OWN].tobytes()
    assert record.float32_bytes == 4 * 990
    assert all(array.shape in ((), (990,)) for array in commit_of(out).state.values())


@pytest.mark.parametrize("length", [1000, 989, 10])
def test_an_update_of_another_length_is_refused(length):
    out = feed(open_round(), *update_parts(blob=update(length)))
    assert commit_of(out) is None
    receipt = last(out, Receipt, TOPICS.inbox("a"))
    assert receipt is None or receipt.outcome == "rejected"  # None: it is longer than any update can be


def test_a_late_update_is_folded_in_with_its_shared_params():
    coordinator = open_round("fedavg", "a", "b", late="fold", goal=1)
    first = commit_of(feed(coordinator, *update_parts("a", update(990)))).params
    out = feed(coordinator, *update_parts("b", update(990)), *update_parts("a", update(990), round=2, version=1))
    params, record = commit_of(out).params, commit_of(out).record
    assert record.folded == [("b", 1)]
    late = round(5 / 2**0.5)  # n_k of an update that is one version late; the rest counts as zeros
    moved = np.float32(0.5 * (5 + late) / 10)
    np.testing.assert_allclose(params[SHARED] - first[SHARED], moved, rtol=1e-5)
    assert params[OWN].tobytes() == PARAMS[OWN].tobytes()


def test_a_device_sends_the_shared_part_of_what_it_has_learned():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 99)).astype(np.float32), np.arange(20) % 10
    blobs = []
    for manifest in (make_manifest(), PERSONAL):
        job = TrainJob(manifest, make_round(manifest=manifest), params_to_bytes(PARAMS), 0)
        blobs.append(train_update(Trainer(PLAN), job, "a", x, y).blob[UpdateHeader.SIZE :])
    whole, shared = blobs
    assert shared == whole[: 4 * 990]


def test_a_manifest_with_a_mask_that_its_plan_cant_have_is_dropped():
    raw = encode(PERSONAL).replace(b'"personal":[1]', b'"personal":[0,1]')
    with pytest.raises(ProtocolError, match="nothing to share"):
        decode(Manifest, raw, 2**16)


def test_a_manifest_with_a_mask_keeps_older_devices_away_and_one_without_is_as_it_was():
    plan = load(mlp([4, 3, 2], seed=0)).plan
    settings = Settings().replace(codec="raw32", downlink="raw32", span=1)
    kept = manifest_of(settings.replace(keep=["head"]), "tiny", "0" * 16, plan)
    assert (kept.requires, [plan.params[i].shape for i in kept.personal]) == (["personal"], [[3, 2], [2]])
    assert b"personal" not in encode(manifest_of(settings, "tiny", "0" * 16, plan))


@pytest.mark.parametrize("more", [{"gate.judge": "canaries", "holdout": 0.2}, {"target_accuracy": 0.9}], ids=str)
def test_what_needs_a_whole_model_at_the_aggregator_is_refused(more):
    with pytest.raises(UsageError, match="no model that a device uses"):
        simulate("mlp:64-32-10", "digits", devices=4, rounds=1, **{"personal.keep": ["head"], **more})


def test_the_default_codecs_carry_the_shared_params_alone():
    """The first layer is most of this model: where devices keep it, updates are short, and it stays as it was."""
    plain, kept = (
        simulate("mlp:64-64-10", "digits", devices=8, rounds=3, seed=1, **{"personal.keep": keep})
        for keep in ([], ["fc1.*"])
    )
    start, first = load(mlp([64, 64, 10], seed=1)).params, slice(0, 64 * 65)
    assert kept.final.bytes_up < plain.final.bytes_up / 2
    assert kept.params[first].tobytes() == start[first].tobytes()
    assert kept.params[64 * 65 :].tobytes() != start[64 * 65 :].tobytes()
    assert plain.final.accuracy is not None
    assert kept.final.accuracy is None  # the aggregator has no model that any device uses


def test_the_aggregators_check_says_what_devices_keep_and_what_is_missing(tmp_path):
    (tmp_path / "m.onnx").write_bytes(mlp([4, 3, 2], seed=0).SerializeToString())
    file = tmp_path / "aggregator.toml"
    file.write_text(
        f'federation = "pond"\nmodel = "{tmp_path}/m.onnx"\nstate_dir = "{tmp_path}/s"\n'
        '[mqtt]\nurl = "mqtt://localhost"\n[personal]\nkeep = ["head"]\n'
    )
    config = files.load(file, AggregatorConfig)
    for holdout, state in ((0.0, "warning"), (0.2, "ok")):
        told = check.settings(check.Federation(config.replace(**{"evaluate.holdout": holdout})))
        (found,) = [finding for finding in told if "devices keep" in finding.text]
        assert found.text.startswith("devices keep fc2.weight, fc2.bias; an update has 15 of 23 params")
        assert found.state == state
