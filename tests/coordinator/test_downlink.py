"""The downlink: frames, the way through them, and the same params on every device, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import HASH, PARAMS, TOPICS, P, make_manifest

import edgefl
from edgefl import _core
from edgefl.coordinator.model.downlink import SLOTS, SLOTS_OF_ONE, Downlink
from edgefl.coordinator.model.retained_model import RetainedModel
from edgefl.core.params import digest_of, params_sha256, to_bfloat16
from edgefl.device.model.fetch import ModelFetch
from edgefl.device.model.way import check_frames
from edgefl.device.patience import Patience
from edgefl.errors import ProtocolError, UsageError
from edgefl.machine import Subscribe
from edgefl.onnx import zoo
from edgefl.protocol.envelope import Envelope
from edgefl.protocol.manifest import Base
from edgefl.protocol.messages import RETAINED_LIMIT, encode
from edgefl.protocol.round import MAX_FRAMES, Frame, Round

ECQ = {"downlink": "ecq", "downlink_options": {"step": 2.0, "exact": "none"}}


GRID = {"downlink": "grid", "downlink_options": {}}


def walk(version: int) -> np.ndarray:
    """(P,) what a version adds to the one before."""
    return np.random.default_rng(version).normal(size=P).astype(np.float32) / 100


class World:
    """An aggregator's downlink and the retained messages that it leaves on the broker."""

    def __init__(self, version=0, **manifest):
        self.manifest = make_manifest(**manifest)
        self.params, self.version = PARAMS, version
        self.downlink = Downlink(self.manifest, PARAMS, version)
        self.lie = RetainedModel(TOPICS, self.manifest, HASH)
        self.retained: dict[str, bytes] = {}
        self._do(self.lie.put(self.downlink.payloads))

    def _do(self, publishes):
        for p in publishes:
            assert p.retain
            self.retained[p.topic] = p.payload
            if not p.payload:
                del self.retained[p.topic]

    @property
    def versions(self) -> set[int]:
        """Of the payloads that lie on the broker."""
        return {Envelope.from_bytes(part).version for part in self.retained.values()}

    def advance(self, params=None):
        self.version += 1
        self.params = self.params + walk(self.version) if params is None else params
        self.downlink.advance(self.params, self.version)
        self._do(self.lie.put(self.downlink.payloads))
        clears = self.lie.keep(self.downlink.payloads)
        while clears:
            self._do(clears)
            clears = self.lie.on_sent(clears[-1].token, True)

    @property
    def round(self) -> Round:
        d = self.downlink
        return Round(self.manifest.id, "open", self.version + 1, 1, self.version, d.sha256, d.frames, 60.0)

    def fetch(self, held=None) -> tuple[ModelFetch, int]:
        """A device's fetch with these versions held; and the payload bytes that it took."""
        check_frames(self.round, self.manifest)
        fetch = ModelFetch(TOPICS, self.manifest, HASH, self.round, held=held or {}, patience=Patience(), now=0.0)
        taken, waiting = 0, list(fetch.ask(0.0))
        while waiting:
            for topic in getattr(waiting.pop(0), "topics", ()) if isinstance(waiting[0], Subscribe) else ():
                if topic in self.retained:
                    taken += len(self.retained[topic])
                    waiting += fetch.on_part(TOPICS.model_part(topic), self.retained[topic], 0.0)
            waiting = [a for a in waiting if isinstance(a, Subscribe)]
        return fetch, taken


def whole(**changes) -> World:
    return World(**ECQ | changes)


@pytest.mark.parametrize("span", [1, 4, 10])
@pytest.mark.parametrize("missed", [1, 5, 50])
def test_a_device_that_missed_versions_gets_the_same_bits_in_few_bytes(span, missed):
    world = whole(span=span, downlink_options={"step": 5.0, "exact": "none"})
    device, _ = world.fetch()
    for _ in range(missed):
        world.advance()
    held = {digest_of(device.params): device.params}
    fetch, taken = world.fetch(held)
    assert fetch.params == world.downlink.shown.tobytes()
    assert params_sha256(np.frombuffer(fetch.params, np.float32)) == world.round.model_sha256
    fresh, whole_bytes = world.fetch()
    assert fresh.params == fetch.params
    assert taken <= whole_bytes
    if missed <= 5:
        assert taken < 4 * P / 4


@pytest.mark.parametrize("span", [1, 4, 10])
@pytest.mark.parametrize("missed", [1, 5, 50])
def test_on_a_grid_whole_models_are_short_and_every_way_leads_to_the_same_bits(span, missed):
    world = World(**GRID, span=span)
    device, first = world.fetch()
    for _ in range(missed):
        world.advance()
    fetch, taken = world.fetch({digest_of(device.params): device.params})
    fresh, whole_bytes = world.fetch()
    assert fetch.params == fresh.params == world.downlink.shown.tobytes()
    assert taken <= whole_bytes < 4 * P / 2.5 and first < 4 * P / 3.5
    newest = max(index for index, frame in enumerate(world.round.frames) if frame.keyframe)
    since = sum(frame.delta for frame in world.round.frames[newest + 1 :])
    assert since < world.round.frames[newest].keyframe, "keyframes are renewed often"


def test_on_a_grid_what_devices_have_stays_near_the_exact_params():
    world = World(**GRID, span=10)
    for _ in range(60):
        world.advance()
        error = world.downlink.shown - world.params
        assert np.abs(error).max() < 0.6 * 2**0.5 * np.abs(world.params).max()
        assert _core.rms(error) < 0.4 * _core.rms(world.params)


@pytest.mark.parametrize("span", [1, 4])
@pytest.mark.parametrize("step", [0.8, 2.0, 4.0])
def test_on_a_grid_a_model_that_hardly_moves_is_approached_whatever_the_first_step(span, step):
    """Finer steps take more bytes than the first coarse model: that is no reason to send that one again."""
    world = World(downlink="grid", downlink_options={"step": step}, span=span)
    for version in range(1, 41):
        world.advance(world.params + walk(version) * np.float32(0.01))
        assert world.fetch()[0].params == world.downlink.shown.tobytes()
    assert _core.rms(world.downlink.shown - world.params) < 0.01 * _core.rms(world.params)


def test_on_a_grid_a_budget_is_for_deltas_and_whole_models_grow_beyond_it():
    world = World(downlink="grid", downlink_options={"max_bytes": 210})
    for version in range(1, 16):
        world.advance(world.params + walk(version) * np.float32(0.01))
        assert all(frame.delta <= 210 for frame in world.round.frames)
        assert world.fetch()[0].params == world.downlink.shown.tobytes()
    assert max(frame.keyframe for frame in world.round.frames) > 210


def test_on_a_grid_what_is_personal_is_exact_since_no_later_model_restores_it():
    model = edgefl.load(zoo.mlp([64, 200, 10]))
    names = [param.name for param in model.plan.params]
    own = [names.index(name) for name in names if name.startswith("fc2")]
    assert own
    manifest = make_manifest(plan=model.plan, personal=own, requires=["personal"], **GRID)
    downlink = Downlink(manifest, model.params, 0)
    ends = np.cumsum([param.size for param in model.plan.params])
    for index, (shown, exact) in enumerate(
        zip(np.split(downlink.shown, ends[:-1]), np.split(model.params, ends[:-1]), strict=True)
    ):
        assert (shown == exact).all() == (index in own or not exact.any())


def test_a_first_model_has_fine_steps_and_what_follows_is_written_whole_on_coarser_ones():
    model = edgefl.load(zoo.mlp([64, 200, 10]))
    params = model.params
    downlink = Downlink(make_manifest(plan=model.plan, **GRID, span=10), params, 0)
    assert _core.rms(downlink.shown - params) < _core.rms(params) / 40
    first = downlink.frames[0].keyframe
    for version in range(1, 4):
        params = params + np.random.default_rng(version).normal(0, 0.02, len(params)).astype(np.float32)
        downlink.advance(params, version)
        assert downlink.frames[0].version == 1
    assert 0 < downlink.frames[0].keyframe < 0.7 * first


def test_an_aggregator_that_starts_again_puts_its_params_on_a_grid_at_once():
    world = World(**GRID)
    for _ in range(3):
        world.advance()
    again = Downlink(world.manifest, world.params, world.version, 2)
    assert (again.shown != world.params).any() and len(again.payloads[0].blob) < P + 100


def test_what_devices_have_stays_near_the_exact_params():
    world = whole()
    for _ in range(60):
        world.advance()
        error = world.downlink.shown - world.params
        assert np.sqrt((error**2).mean()) < 2 * 0.01  # a few steps' worth, not a walk of its own


def test_versions_that_move_less_than_before_take_a_few_deltas_to_show_it_not_a_large_one():
    world = whole(downlink_options={"step": 5.0, "exact": "none"})
    for version in range(1, 31):
        world.advance(world.params + walk(version) * np.float32(1 if version <= 10 else 1e-3))
        assert 0 < world.round.frames[-1].delta < 2 / 8 * P + 60
    assert _core.rms(world.downlink.shown - world.params) < 2.5 * 1e-3 * 0.01  # half a step


def test_the_first_model_is_a_third_of_float32_and_what_that_took_comes_with_the_first_delta():
    model = edgefl.load(zoo.mlp([64, 200, 10]))
    downlink = Downlink(make_manifest(plan=model.plan, downlink="ecq", downlink_options={"step": 0.1}), model.params, 0)
    assert len(downlink.steps[0].keyframe) < 4 * len(model.params) / 2.8
    taken = np.abs(downlink.shown - model.params)
    assert (taken <= np.abs(model.params) / 2**8).all() and taken.any()
    trained = model.params + np.random.default_rng(0).normal(0, 1e-4, len(model.params)).astype(np.float32)
    downlink.advance(trained, 1)
    assert np.abs(downlink.shown - trained).max() < taken.max() / 20


@pytest.mark.parametrize("options", [{"bits": 12}, {"bits": 14}])
def test_deltas_longer_than_the_first_keyframe_make_good_what_it_took(options):
    model = edgefl.load(zoo.mlp([64, 200, 10]))
    manifest, params = make_manifest(plan=model.plan, downlink="ecq", downlink_options=options), model.params
    downlink = Downlink(manifest, params, 0)
    first = downlink.frames[0].keyframe
    for version in range(1, 5):
        params = params + np.random.default_rng(version).normal(0, 1e-4, len(params)).astype(np.float32)
        downlink.advance(params, version)
        assert downlink.frames[-1].delta > first
    assert _core.rms(downlink.shown - params) < 1e-6


@pytest.mark.parametrize("codec", [{"downlink": "ecq", "downlink_options": {"step": 8.0}}, GRID])
@pytest.mark.parametrize("once", [True, False])
def test_frozen_layers_are_exact_from_the_first_model_on_and_take_no_bytes_later(codec, once):
    model = edgefl.load(zoo.mlp([64, 200, 10]), freeze=["fc1.weight"])
    frozen = [index for index, param in enumerate(model.plan.params) if not param.trainable]
    manifest = make_manifest(plan=model.plan, base=Base(frozen) if once else None, **codec)
    downlink = Downlink(manifest, model.params, 0)
    assert (len(downlink.steps[0].keyframe) < 4 * 12_800 / 2) == once
    trainable = np.concatenate([np.full(tensor.size, tensor.trainable) for tensor in model.plan.params])
    params = model.params
    for version in range(1, 4):
        params = params + np.where(trainable, np.float32(1e-3), np.float32(0))
        downlink.advance(params, version)
        assert (downlink.shown == params)[~trainable].all()
        assert 0 < downlink.frames[-1].delta < trainable.sum()


@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bfloat16_is_the_nearest_number_of_eight_significant_bits(value):
    (rounded,) = to_bfloat16(np.array([value], np.float32))
    bits = int(rounded.view(np.uint32))
    assert bits & 0xFFFF == 0 and np.isfinite(rounded)
    assert np.signbit(rounded) == np.signbit(np.float32(value))
    magnitude = bits & 0x7FFFFFFF
    for other in (max(0, magnitude - 0x10000), min(magnitude + 0x10000, 0x7F7F0000)):  # the numbers beside it
        nearer = abs(float(np.uint32(other).view(np.float32)) - abs(value)) - abs(float(rounded) - value)
        assert nearer > 0 or other == magnitude or (nearer == 0 and bits >> 16 & 1 == 0)


@pytest.mark.parametrize("codec", ["raw32", "planes"])
def test_a_lossless_codec_writes_every_version_whole(codec):
    world = World(downlink=codec)
    for _ in range(3):
        world.advance()
        (frame,) = world.round.frames
        assert frame.delta == 0
        assert world.fetch()[0].params == world.params.tobytes()
        assert world.versions == {world.version}


def test_the_keyframe_is_the_shorter_way_when_the_chain_is_long():
    world = whole()
    held = {digest_of(world.fetch()[0].params): world.fetch()[0].params}
    seen_renewed = False
    for _ in range(120):
        world.advance()
        frames = world.round.frames
        assert len(frames) <= MAX_FRAMES and len(encode(world.round)) < RETAINED_LIMIT / 6
        keyframe = next(f for f in frames if f.keyframe)
        after = frames[frames.index(keyframe) + 1 :]
        assert sum(f.delta for f in after) <= keyframe.keyframe
        seen_renewed |= keyframe.version > 0
        _, taken = world.fetch(held)
        assert taken <= keyframe.keyframe + sum(f.delta for f in after) + 48 * (40 + len(after) * 2)
    assert seen_renewed


@pytest.mark.parametrize("span", [1, 3])
def test_nothing_is_left_on_the_broker_but_the_way(span):
    world = whole(span=span)
    for _ in range(50):
        world.advance()
        assert world.versions <= {frame.version for frame in world.round.frames}


@pytest.mark.parametrize("span", [1, 7, 1000])
def test_a_slot_is_never_wanting(span):
    """Whatever is renewed, trimmed and begun anew, a version finds free slots among those of its attempt."""
    world = whole(span=span)
    for version in range(300):
        before = {payload.slot: payload.version for payload in world.downlink.payloads}
        world.advance(world.params + np.float32(1e6) if version % 70 == 69 else None)
        after = {payload.slot: payload.version for payload in world.downlink.payloads}
        assert len(after) == len(world.downlink.payloads)
        assert {before[slot] == after[slot] for slot in before.keys() & after.keys()} <= {True}
        assert all(slot < SLOTS_OF_ONE for slot in after)
    world.downlink.move(2)
    assert all(SLOTS_OF_ONE <= payload.slot < SLOTS for payload in world.downlink.payloads)


@pytest.mark.parametrize(("span", "most"), [(1, 1), (3, 2)])
def test_a_fetch_holds_no_versions_but_those_of_use_to_the_next_round(span, most, monkeypatch):
    """The version in work, and what is kept: not each of the dozen on the way."""
    world, counts, on_part = whole(span=span), [], ModelFetch.on_part

    def counting(fetch, *part):
        out = on_part(fetch, *part)
        flat = [blob for value in vars(fetch).values() for blob in (value.values() if type(value) is dict else [value])]
        counts.append(len({id(blob) for blob in flat if type(blob) is bytes and len(blob) == 4 * P}))
        return out

    for _ in range(10 * span):
        world.advance()
    monkeypatch.setattr(ModelFetch, "on_part", counting)
    fetch, _ = world.fetch()
    assert sum(frame.delta > 0 for frame in world.round.frames) >= 8
    assert max(counts) <= 1 + most
    assert list(fetch.kept) == [frame.digest for frame in world.round.frames[-most:]]


def test_a_version_that_a_delta_cannot_express_is_a_keyframe():
    world = World(
        downlink="ecq", downlink_options={"max_bytes": 55}
    )  # enough for ten biases in float16, not in float32
    world.advance(PARAMS + np.float32(1e6))
    (frame,) = world.round.frames
    assert frame.keyframe and world.fetch()[0].params == world.params.tobytes()
    world.advance(world.params + np.float32(0.5))
    assert 20 < world.round.frames[-1].delta <= 55


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_i20_damaged_or_swapped_frames_never_become_a_model(data):
    world = whole()
    for _ in range(3):
        world.advance()
    topics = sorted(world.retained)
    victim = data.draw(st.sampled_from(topics))
    kind = data.draw(st.sampled_from(["swap", "flip", "lose"]))
    if kind == "swap":
        world.retained[victim] = world.retained[data.draw(st.sampled_from(topics))]
    elif kind == "lose":
        del world.retained[victim]
    else:
        raw = bytearray(world.retained[victim])
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        world.retained[victim] = bytes(raw)
    try:
        fetch, _ = world.fetch()
    except ProtocolError:
        return
    assert fetch.params in (None, world.downlink.shown.tobytes())


def test_a_held_version_that_is_not_what_it_says_is_not_trusted():
    world = whole()
    good = world.fetch()[0].params
    world.advance()
    fetch, _ = world.fetch({digest_of(good): bytes(4 * P)})
    assert fetch.params == world.downlink.shown.tobytes()  # by the keyframe, after the delta had failed


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(1, "0" * 16, 100, 0)],  # another version
        [Frame(0, "1" * 16, 100, 0)],  # another digest
        [Frame(0, "0" * 16, 0, 9)],  # no keyframe
        [Frame(0, "0" * 16, 4 * P + 6, 0)],  # too long
        [Frame(9, "2" * 16, 100, 0), Frame(8, "3" * 16, 0, 0), Frame(0, "0" * 16, 0, 9)],  # a gap
        [Frame(9, "2" * 16, 100, 0), Frame(0, "0" * 16, 0, 2**31)],
    ],
)
def test_i17_frames_that_the_plan_does_not_allow_are_refused(frames):
    manifest = make_manifest(**ECQ)
    with pytest.raises(ProtocolError):
        check_frames(Round(manifest.id, "open", 1, 1, 0, "0" * 64, frames, 60.0), manifest)


def test_misspelt_downlinks_are_refused():
    with pytest.raises(UsageError, match="did you mean 'ecq'"):
        make_manifest(downlink="ecg").check_codecs()
