"""Error feedback: the law that nothing is lost in the sum, what is never trained on, and what the theory promises."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import codecs, load, simulate
from edgefl.codecs import Codec
from edgefl.codecs import feedback as error_feedback
from edgefl.codecs.feedback import pack, unpack
from edgefl.core.plan import Param
from edgefl.core.seeds import derived_seed
from edgefl.core.trainer import Trainer
from edgefl.data import Dataset
from edgefl.errors import CodecError
from edgefl.federation import make_manifest
from edgefl.onnx import zoo
from edgefl.settings import Settings

P = 6
DELTA = np.array([0.5, -0.25, 1e-3, 0.0, 3.0, -1e-3], np.float32)
NAN = np.full(P, np.nan, np.float32)


class Sign(Codec):
    """The mean magnitude with each coordinate's sign: as biased as a codec gets (Bernstein et al. 2018)."""

    name = "test-sign"
    wire_id = 250
    feedback = True

    def bound(self, num_params):
        return 4 + num_params

    def encode(self, delta, rms=None):
        delta = self._check_delta(delta)
        return np.float32(abs(delta).mean()).tobytes() + (delta > 0).tobytes()

    def decode(self, payload, num_params):
        self._check_length(payload, self.bound(num_params))
        scale = np.frombuffer(payload[:4], "<f4")
        return np.where(np.frombuffer(payload[4:], bool), scale, -scale).astype(np.float32)

    def accumulate(self, payload, weight, accumulator):
        accumulator.add_f32(self.decode(payload, len(payload) - 4).tobytes(), weight)


class Coarse(Sign):
    """Whole multiples of the rms that it is told."""

    name = "test-coarse"
    wire_id = 251

    def encode(self, delta, rms=None):
        delta = self._check_delta(delta)
        step = np.float32(rms or self.rms(delta) or 1)
        return step.tobytes() + np.rint(delta / step).astype(np.int8).tobytes()

    def decode(self, payload, num_params):
        self._check_length(payload, self.bound(num_params))
        return np.frombuffer(payload[4:], np.int8) * np.frombuffer(payload[:4], "<f4")


class Half(Sign):
    """float16, which can't hold what is beyond 65504."""

    name = "test-half"
    wire_id = 252

    def encode(self, delta, rms=None):
        delta = self._check_delta(delta)
        if abs(delta).max() > 65504:
            raise CodecError("test-half: the delta exceeds 65504")
        return delta.astype("<f2").tobytes()

    def decode(self, payload, num_params):
        return np.frombuffer(payload, "<f2").astype(np.float32)


@pytest.fixture(autouse=True)
def lossy(monkeypatch):
    for codec in (Sign, Coarse):
        monkeypatch.setitem(codecs.CODECS, codec.name, f"{__name__}:{codec.__name__}")


def values(blob: bytes) -> np.ndarray:
    return np.frombuffer(blob, "<f4").copy()


# The law


LOSSY = [Sign(), Coarse(), Half(), codecs.get("ecq"), codecs.get("ecq", step=2.0)]


@pytest.mark.parametrize("codec", LOSSY, ids=lambda c: f"{c.name} {getattr(c, 'step', '')}")
def test_what_was_sent_and_what_is_left_add_up_to_what_was_learned(codec):
    """But for what float16 can't hold of the residual: at most 2^-11 of it in each round."""
    rng, residual = np.random.default_rng(0), None
    learned, sent, rounded = np.zeros(P), np.zeros(P), np.full(P, 1e-5)
    for _ in range(30):
        delta = rng.normal(size=P).astype(np.float32)
        payload, left = error_feedback.encode(codec, delta, residual)
        learned, sent, residual = learned + delta, sent + codec.decode(payload, P), unpack(left, P)
        rounded += abs(residual) * 2.0**-11
    assert abs(learned - sent).max() > 1e-5
    assert (abs(sent + residual - learned) <= rounded).all()


def test_a_lossless_codec_leaves_nothing():
    payload, left = error_feedback.encode(codecs.get("raw32"), DELTA, None)
    assert payload == DELTA.tobytes() and unpack(left, P).tolist() == [0] * P


WIDE = np.array([3e38, -1e38, 1e30, 0.0, 1e-38, -3.0], np.float32)


@pytest.mark.parametrize("scale", [1.0, 2.0**-100, 1e-30, 0.0])
@pytest.mark.parametrize("values", [DELTA, WIDE, -DELTA], ids=str)
def test_a_residual_is_stored_as_half_floats_that_keep_eleven_bits_of_each_coordinate(values, scale):
    residual = (values * np.float32(scale)).astype(np.float32)
    blob = pack(residual.copy())
    assert len(blob) == 1 + 2 * P
    error = abs(unpack(blob, P).astype(float) - residual)
    assert (error <= abs(residual) * 2.0**-11 + abs(residual).max() * 2.0**-38).all()


@pytest.mark.parametrize("values", [NAN, np.full(P, np.inf, np.float32)], ids=str)
def test_what_is_not_finite_is_no_residual(values):
    assert pack(values.copy()) is None


def test_a_residual_of_an_earlier_version_is_read():
    assert unpack(DELTA.tobytes(), P).tobytes() == DELTA.tobytes()
    np.testing.assert_allclose(unpack(pack(DELTA.copy()), P), DELTA, rtol=2.0**-11)


def test_the_step_comes_from_the_fresh_delta_not_from_what_has_piled_up():
    pile = 100 * np.ones(P, np.float32)
    payload, _ = error_feedback.encode(Coarse(), DELTA, pile)
    assert values(payload[:4])[0] == Coarse().rms(DELTA)
    tensors = load(zoo.mlp([4, 3])).plan.params
    ecq = codecs.get("ecq").for_tensors(tensors)
    delta = np.r_[np.full(12, 2.0), np.full(3, 50.0)].astype(np.float32)  # 3 biases, which ecq keeps as they are
    assert ecq.rms(delta) == 2.0
    assert ecq.encode(delta) == ecq.encode(delta, ecq.rms(delta))


@pytest.mark.parametrize("shrunk", [0.1, 1e-3])
@pytest.mark.parametrize(("name", "step"), [("ecq", 5.0), ("ecq", 8.0), ("ecq", 32.0)])
def test_updates_that_shrink_take_a_few_rounds_to_bring_former_losses_out_not_one_of_all_their_digits(
    name, step, shrunk
):
    codec, rng, n = codecs.get(name, step=step), np.random.default_rng(0), 10_000
    residual, bits = None, []
    for round in range(40):
        delta = (rng.normal(size=n) * (1 if round < 10 else shrunk)).astype(np.float32)
        payload, left = error_feedback.encode(codec, delta, residual)
        residual = unpack(left, n)
        bits.append(8 * len(payload) / n)
    assert max(bits[10:]) < 1.9  # by steps of the fresh rms alone it is 2.1 to 3.5 at a tenth, 14 to 28 at a thousandth
    assert codec.rms(residual) < step / 2 * shrunk  # they are out


# What is never trained on


@pytest.mark.parametrize("residual", [NAN, np.full(P, np.inf, np.float32), np.full(P, 7e4, np.float32)], ids=str)
def test_a_residual_that_the_codec_can_not_write_is_dropped_and_the_delta_goes(residual, caplog):
    assert error_feedback.encode(Half(), DELTA, residual.copy()) == error_feedback.encode(Half(), DELTA, None)
    assert "residual is dropped" in caplog.text


def test_an_overflow_of_the_sum_is_no_residual_either():
    largest = np.full(P, np.finfo(np.float32).max, np.float32)
    payload, _ = error_feedback.encode(codecs.get("raw32"), largest, largest.copy())
    assert payload == largest.tobytes()


def test_a_delta_that_can_not_be_written_is_an_error():
    with pytest.raises(CodecError):
        error_feedback.encode(Sign(), NAN, DELTA)


@pytest.mark.parametrize("length", [0, 4 * P - 4, 2 * P, 2 * P + 2])
def test_a_residual_of_another_length_is_dropped(length, caplog):
    assert unpack(bytes(length), P) is None
    assert "dropped" in caplog.text


# Who decides


@pytest.mark.parametrize(
    ("codec", "asked", "decided"),
    [("raw32", "auto", False), ("ecq", "auto", True), ("ecq", False, False), ("ecq-sparse", True, True)],
)
def test_the_settings_decide_and_else_the_codec(codec, asked, decided):
    plan = load(zoo.mlp([2, 1])).plan
    settings = Settings().replace(codec=codec, error_feedback=asked, downlink="raw32", span=1)
    assert make_manifest(settings, "fleet", "0" * 16, plan).error_feedback is decided


# What the theory promises


def least_squares(seed=3):
    """A convex problem whose devices disagree; their deltas do not vanish at the optimum."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(120, 5)).astype(np.float32)
    device = np.repeat(np.arange(4), 30)
    y = (x @ rng.normal(size=5) + 2 * device).astype(np.float32)[:, None]
    return load(zoo.mlp([5, 1], seed=0), loss="mse"), Dataset(x, y, device_train=device)


def distance(codec: str, lr: float, error_feedback: bool | str = "auto") -> float:
    """Of the params from those of the same run on raw32, both long after that has converged."""
    model, data = least_squares()
    settings = {"devices": 4, "rounds": int(8 / lr), "partition": "natural", "batch_size": "all", "lr": lr}
    settings |= {"downlink": "raw32"}
    exact = simulate(model, data, **settings, codec="raw32")
    lossy = simulate(model, data, **settings, codec=codec, error_feedback=error_feedback)
    assert lossy.final.committed == settings["rounds"]
    return float(abs(lossy.params - exact.params).max())


@pytest.mark.parametrize("codec", ["test-sign", "test-coarse"])
def test_with_feedback_a_biased_codec_goes_where_fp32_goes_and_without_it_stalls(codec):
    """Karimireddy et al. 2019, theorem II: what is left of the distance shrinks with the learning rate."""
    coarse, fine = distance(codec, lr=0.05), distance(codec, lr=0.0125)
    assert fine < 0.04
    assert fine < coarse / 2.5
    assert distance(codec, 0.0125, error_feedback=False) > 5 * fine


def test_a_fleet_of_one_does_what_the_formula_says():
    model, data = least_squares()
    x, y = data.x_train, data.y_train
    trainer, params = Trainer(model.plan), model.params
    options = {"batch_size": "all", "codec": "test-sign", "downlink": "raw32", "min_reports": 1}
    history = simulate(model, Dataset(x, y), devices=1, rounds=3, seed=1, **options)
    residual = None
    for round in range(1, 4):
        delta = trainer.fit(params, x, y, lr=0.1, batch_size="all", seed=derived_seed(1, round, "dev-0")).delta
        payload, left = error_feedback.encode(Sign(), delta, residual)
        params, residual = params + np.round(Sign().decode(payload, 6) * 2.0**30) / 2.0**30, unpack(left, 6)
    np.testing.assert_allclose(history.params, params, atol=1e-6)


@pytest.mark.parametrize("name", ["ecq", "ecq-sparse"])
def test_what_a_codec_takes_from_a_running_variance_is_not_owed_to_the_next_one(name: str) -> None:
    tensors = [Param("w", [20, 30]), Param("variance", [400], False)]
    codec = codecs.get(name).for_tensors(tensors)
    rng = np.random.default_rng(0)
    model = rng.uniform(0.1, 3, 400).astype(np.float32)
    delta = np.append(rng.normal(size=600).astype(np.float32), -model / 2)
    for _ in range(2):
        _, left = error_feedback.encode(codec, delta, None)
        residual = unpack(left, 1000)
        assert residual[:600].any()
        delta[600:] = -model  # it is 0 on the device
        payload, _ = error_feedback.encode(codec, delta, residual)
        assert (model + codec.decode(payload, 1000)[600:] >= 0).all()
