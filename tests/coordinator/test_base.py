"""What no training changes: on the broker once, beside all versions, and in none of them."""

from __future__ import annotations

import frozen
import msgspec
import numpy as np
import pytest
from conftest import ROOT
from machines import TOPICS, feed, make_coordinator, of, status, update_parts

from edgefl.coordinator.model.downlink import Downlink
from edgefl.core.mask import LEAST_BASE, STATISTICS, Mask
from edgefl.core.params import params_sha256
from edgefl.core.plan import Node, Param, Plan
from edgefl.device.work import Terms
from edgefl.errors import ModelError, UsageError
from edgefl.federation import make_manifest, make_strategy
from edgefl.machine import Connected, Publish, Sent
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.protocol.envelope import Envelope
from edgefl.protocol.features import unknown_features
from edgefl.protocol.manifest import Base, Manifest
from edgefl.protocol.messages import decode
from edgefl.protocol.topics import BASE_SLOT
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import Settings
from edgefl.strategies.masked import over

PLAIN = {"codec": "raw32", "downlink": "raw32", "span": 1}
NUM_MOVED = frozen.PLAN.num_trainable


def coordinator(**options):
    manifest = msgspec.structs.replace(frozen.MANIFEST, base=Base([2]))  # as `federation.make_manifest` makes it
    strategy = over(manifest.mask, make_strategy(Settings()))
    return make_coordinator(strategy=strategy, manifest=manifest, params=frozen.PARAMS, **options)


def parts(actions) -> list[Publish]:
    where = f"{TOPICS.base}/model/{BASE_SLOT}/"
    return [action for action in of(actions, Publish) if action.topic.startswith(where)]


def settled(machine, actions) -> list:
    """The actions, and those that follow when the broker acknowledges every clear."""
    out = list(actions)
    while tokens := [a.token for a in of(actions, Publish) if a.token is not None]:
        actions = [action for token in tokens for action in feed(machine, Sent(token, True))]
        out += actions
    return out


def joined(publishes: list[Publish]) -> bytes:
    return b"".join(Envelope.from_bytes(p.payload).data for p in publishes if p.payload)


def update() -> bytes:
    delta = np.full(frozen.MANIFEST.update_size, 0.5, np.float32)
    return UpdateHeader(5, 1, 0.5, 10, 100).to_bytes() + frozen.MANIFEST.update_codec.encode(delta)


def test_the_memory_that_a_device_allows_counts_it():
    size = 4 * frozen.PLAN.num_params
    assert Terms(frozen.MANIFEST, size).manifest.model_size * 4 < size
    with pytest.raises(ModelError, match=f"its model takes {size} bytes"):
        Terms(frozen.MANIFEST, size - 1)


def test_it_is_named_by_the_manifest_and_goes_down_once():
    machine = coordinator()
    out = settled(machine, feed(machine, status("a"), Connected()))
    manifest = decode(Manifest, of(out, Publish, TOPICS.manifest)[0].payload, 2**16)
    assert manifest == frozen.MANIFEST and manifest.base.sha256 == params_sha256(frozen.FROZEN)
    numbers = manifest.base_codec.decode(joined(parts(out)), len(frozen.FROZEN))
    assert numbers.tobytes() == frozen.FROZEN.tobytes()
    for number in (1, 2, 3):
        events = update_parts(blob=update(), round=number, version=number - 1, federation=frozen.HASH)
        later = settled(machine, feed(machine, *events))
        assert machine.version == number and not parts(later)
        assert machine.params[NUM_MOVED:].tobytes() == frozen.FROZEN.tobytes()
        np.testing.assert_allclose(machine.params[:NUM_MOVED], frozen.PARAMS[:NUM_MOVED] + number / 2, rtol=1e-5)
        assert len(machine.announcer.downlink.payloads[0].blob) < 4 * NUM_MOVED + 100
    again = settled(machine, feed(machine, Connected()))  # the broker may have lost its memory
    assert joined(parts(again)) == joined(parts(out))


def test_an_aggregator_that_starts_again_names_the_same():
    machine = coordinator()
    feed(machine, status("a"), Connected())
    feed(machine, *update_parts(blob=update(), federation=frozen.HASH))
    again = make_coordinator(
        strategy=over(frozen.MANIFEST.mask, make_strategy(Settings())), manifest=frozen.MANIFEST, params=machine.params,
        start={"attempt": 2, "version": 1, "round": 2},
    )  # fmt: skip
    assert again.announcer.manifest.raw == machine.announcer.manifest.raw


def test_an_aggregator_that_sends_it_always_clears_what_an_earlier_one_left():
    whole = msgspec.structs.replace(frozen.MANIFEST, base=None, requires=[])
    machine = make_coordinator(manifest=whole, params=frozen.PARAMS)
    out = parts(settled(machine, feed(machine, status("a"), Connected())))
    longest = -(-frozen.MANIFEST.base_codec.bound(len(frozen.FROZEN)) // whole.part_bytes)
    assert {action.topic for action in out} == {TOPICS.model(BASE_SLOT, part) for part in range(longest)}
    assert not any(action.payload for action in out)


@pytest.mark.parametrize("downlink", [{}, {"downlink": "ecq", "downlink_options": {"step": 4.0}}])
def test_no_version_has_it(downlink):
    """Keyframes and deltas are those of the params that move, alone; the digests are of the whole model."""
    manifest = frozen.manifest_of(**downlink)
    params, model = frozen.PARAMS, Downlink(manifest, frozen.PARAMS, 0)
    for version in range(1, 30):
        params = params + frozen.MOVED * np.float32(version / 7)
        model.advance(params, version)
        assert model.shown[NUM_MOVED:].tobytes() == frozen.FROZEN.tobytes()
        assert model.sha256 == params_sha256(model.shown)
        assert all(len(payload.blob) < 4 * NUM_MOVED + 100 for payload in model.payloads)
    assert model.longest < 4 * NUM_MOVED + 2000


def test_parts_fit_a_broker_that_takes_short_packets():
    machine = coordinator()
    out = settled(machine, feed(machine, status("a"), Connected(max_packet_bytes=1024 + 48 + 256)))
    numbers = frozen.MANIFEST.base_codec.decode(joined(parts(out)), len(frozen.FROZEN))
    assert numbers.tobytes() == frozen.FROZEN.tobytes()
    assert all(len(part.payload) <= 1024 + 48 + 256 for part in parts(out))


# Which params


def of_settings(plan, **changes):
    return make_manifest(Settings().replace(**PLAIN | changes), "f", "0" * 16, plan)


def test_frozen_weights_are_the_base():
    plan = load(zoo.mlp([64, 128, 10]), freeze=["fc1"]).plan
    manifest = of_settings(plan)
    assert [plan.params[index].name for index in manifest.base.params] == ["fc1.weight", "fc1.bias"]
    assert manifest.requires == ["base"] and not unknown_features(manifest.raw)
    assert manifest.model_size == manifest.update_size == plan.num_trainable
    assert manifest.whole_size == plan.num_params


def test_a_model_without_frozen_weights_has_the_bytes_that_it_always_had():
    manifest = of_settings(load(zoo.mlp([64, 128, 10])).plan)
    assert manifest.base is None and b"base" not in manifest.raw


@pytest.mark.parametrize("changes", [{"frozen": "always"}, {"strategy": "scaffold"}, {"strategy": "ditto"}])
def test_where_the_whole_model_is_needed_there_is_none(changes):
    plan = load(zoo.mlp([64, 128, 10]), freeze=["fc1"]).plan
    manifest = of_settings(plan, **changes, **{"rounds.expect": 4})
    assert manifest.base is None and manifest.update_size >= plan.num_params


def test_few_numbers_are_not_worth_it():
    assert of_settings(load(zoo.mlp([64, 32, 10]), freeze=["fc1"]).plan).base is None


def test_running_statistics_and_a_scaling_move():
    """They are untrained, and change all the same."""
    wide = LEAST_BASE
    params = [Param("g", [wide]), Param("h", [wide]), *(Param(n, [wide], False) for n in ("mean", "var", "c"))]
    nodes = [Node("batch_norm", [0], [0, 1, 2, 3], [], [1e-5, 0.9]), Node("mul", [1], [4], [0])]
    plan = Plan([wide], nodes, params, "mse", 2, 2)
    assert of_settings(plan).base.params == [4]
    scaled = load(zoo.mlp([64, 128, 10]), freeze=["fc1"], standardize=True).plan
    names = [scaled.params[index].name for index in of_settings(scaled).base.params]
    assert names == ["fc1.weight", "fc1.bias"]


def test_the_core_moves_no_other_state():
    """An op that changed untrained params, and that STATISTICS lacks, would lose what it changes."""
    found = [path.name for path in sorted((ROOT / "src/ops").glob("*.c")) if "run->state" in path.read_text()]
    assert found == ["norm.c"] and list(STATISTICS) == ["batch_norm"]


def test_personal_params_stay_personal():
    plan = load(zoo.mlp([64, 128, 10]), freeze=["fc1"]).plan
    manifest = of_settings(plan, keep=["fc2.bias", "fc1.bias"])
    assert [plan.params[index].name for index in manifest.base.params] == ["fc1.weight"]
    mask, vector = manifest.mask, np.arange(plan.num_params, dtype=np.float32)
    assert mask.num_shared == 128 * 10 and mask.num_personal == len(mask.own(vector)) == 10 + 128
    assert np.array_equal(mask.with_shared(vector, mask.shared(vector)), vector)
    assert np.array_equal(mask.with_own(vector * 0, mask.own(vector))[mask.with_own(vector * 0, mask.own(vector)) > 0],
                          mask.own(vector))  # fmt: skip


def test_adapters_make_the_weights_a_base():
    model = load(zoo.mlp([64, 128, 10])).with_adapters(rank=4)
    manifest = of_settings(model.plan)
    assert manifest.model_size == manifest.update_size == model.plan.num_trainable
    assert {"fc1.weight", "edgefl.adapters.fc1.weight.A"} <= {model.plan.params[i].name for i in manifest.base.params}


@pytest.mark.parametrize("params", [[0], [1, 2], [2, 2], [3], [2, 1]])
def test_a_base_that_can_not_be(params):
    with pytest.raises(ModelError, match="frozen"):
        Mask(frozen.PLAN, (), params)


def test_no_base_beside_side_vectors():
    with pytest.raises(ModelError, match="side vectors"):
        msgspec.structs.replace(frozen.MANIFEST, sides=["momentum"])


def test_a_wrong_setting():
    with pytest.raises(UsageError, match=r"downlink\.frozen"):
        Settings().replace(frozen="never")
