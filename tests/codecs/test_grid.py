"""grid: models on multiples of a power of two: the same bits from wherever a device comes, in few of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgefl import _core, codecs
from edgefl.codecs.grid import FIRST, LARGEST
from edgefl.core.plan import Param
from edgefl.errors import CodecError, UsageError

TENSORS = (
    Param("w", [300, 200]), Param("b", [200]), Param("v", [200, 10]), Param("c", [10]),
    Param("mean", [50], False), Param("frozen", [10, 5], False),
)  # fmt: skip
P = sum(tensor.size for tensor in TENSORS)
TRAINED = P - 100
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ANY = arrays(np.float32, 600, elements=NUMBERS | st.integers(-200, 200).map(float), fill=NUMBERS)


def grid(**options: float) -> codecs.Codec:
    return codecs.get("grid", **options).for_tensors(TENSORS)


def weights(seed: int = 0) -> np.ndarray:
    """(P,): matrices of different sizes, biases of which some are 0, a running mean, frozen numbers."""
    rng = np.random.default_rng(seed)
    out = rng.normal(size=P) * np.repeat([0.05, 0.01, 0.3, 0.1, 2, 1], [tensor.size for tensor in TENSORS])
    out[60_000:60_100] = 0
    return out.astype(np.float32)


@given(x=ANY)
def test_every_float_comes_back(x: np.ndarray) -> None:
    codec = codecs.get("grid").for_tensors([Param("w", [20, 25]), Param("b", [60]), Param("s", [40], False)])
    payload = codec.encode(x)
    assert len(payload) <= codec.bound(len(x))
    assert codec.decode(payload, len(x)).tobytes() == x.tobytes()


def test_a_first_model_is_nearly_exact_and_takes_a_fifth_of_float32() -> None:
    model, codec = weights(), grid()
    rounded = codec.rounded(model)
    payload = codec.encode(rounded)
    assert codec.decode(payload, P).tobytes() == rounded.tobytes()
    assert len(payload) < 4 * P / 4.5
    assert _core.rms((rounded - model)[:60_000]) < _core.rms(model[:60_000]) / 50
    assert (rounded[TRAINED:] == model[TRAINED:]).all()


@pytest.mark.parametrize("step", [0.05, 0.4, 1.5])
def test_a_number_moves_by_half_a_step_at_most_and_vectors_by_less(step: float) -> None:
    model, codec = weights(), grid(step=step)
    moved, at = np.abs(codec.rounded(model) - model), 0
    for tensor in TENSORS[:4]:
        run = slice(at, at := at + tensor.size)
        most = step / FIRST * 2**0.5 * _core.rms(model[run]) / (1 if len(tensor.shape) == 2 else 16)
        assert most / 5 < moved[run].max() <= most / 2 * 1.0001


@pytest.mark.parametrize("span", [1, 5])
def test_differences_and_whole_models_lead_to_the_same_bits(span: int) -> None:
    codec, exact = grid(), weights()
    shown = anchor = codec.rounded(exact)
    at_anchor = exact
    for version in range(1, 31):
        size = 0.01 if version < 15 else 0.0002  # as training does, it moves less later
        exact = exact + np.random.default_rng(version).normal(size=P).astype(np.float32) * np.float32(size)
        exact[-50:] = weights()[-50:]
        difference = codec.encode_model(exact, exact - at_anchor, anchor)
        shown = anchor + codec.decode(difference, P)
        whole = codec.encode(shown)
        assert codec.decode(whole, P).tobytes() == shown.tobytes()
        assert len(whole) < 4 * P / 4
        if version > span:  # before, differences are from a first model, whose steps are fine
            assert len(difference) < 4 * P / 10
        assert (shown[-50:] == exact[-50:]).all()
        assert np.abs(shown[TRAINED:-50] - exact[TRAINED:-50]).max() < 2**-8
        if version % span == 0:
            anchor, at_anchor = shown, exact
    assert _core.rms(shown[:TRAINED] - exact[:TRAINED]) < 0.02  # half a step or less: no walk of its own


def test_steps_become_finer_where_a_model_hardly_moves() -> None:
    codec, exact = grid(), weights()
    shown = codec.rounded(exact)
    before = _core.rms((shown - exact)[:60_000])
    for version in range(12):
        new = exact + np.random.default_rng(version).normal(size=P).astype(np.float32) * np.float32(1e-5)
        shown = shown + codec.decode(codec.encode_model(new, new - exact, shown), P)
        exact = new
    assert _core.rms((shown - exact)[:60_000]) < min(before / 20, 8 * 1e-5)


@pytest.mark.parametrize("span", [1, 3])
def test_what_begins_as_zeros_or_ones_moves_as_it_is_trained(span: int) -> None:
    """All of them lie on a grid that is much coarser than what they move by."""
    tensors = Param("b", [50]), Param("gamma", [50]), Param("lora", [50, 20]), Param("scales", [20, 10])
    sizes = [tensor.size for tensor in tensors]
    codec = codecs.get("grid").for_tensors(tensors)
    exact = np.repeat(np.array([0, 1, 0, 1], np.float32), sizes)
    shown = anchor = codec.rounded(exact)
    at_anchor = start = exact
    for version in range(1, 31):
        exact = exact + np.random.default_rng(version).normal(0, 0.003, len(exact)).astype(np.float32)
        shown = anchor + codec.decode(codec.encode_model(exact, exact - at_anchor, anchor), len(exact))
        if version % span == 0:
            anchor, at_anchor = shown, exact
    for run in np.split(np.arange(len(exact)), np.cumsum(sizes)[:-1]):
        assert _core.rms((shown - exact)[run]) < 0.7 * _core.rms((exact - start)[run])


def test_a_running_variance_that_becomes_small_never_falls_below_zero() -> None:
    codec = codecs.get("grid").for_tensors([Param("var", [1000], False)])
    shown = np.random.default_rng(0).uniform(0.1, 3, 1000).astype(np.float32)
    for small in (1e-3, 1e-5, 0.0):
        model = np.full(1000, small, np.float32)
        after = shown + codec.decode(codec.encode_model(model, model - shown, shown), 1000)
        assert (after >= 0).all() and np.abs(after - model).max() < 1e-3


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_model_that_is_not_finite_is_a_codec_error(wrong: float) -> None:
    model, codec = weights(), grid()
    model[3] = wrong
    with pytest.raises(CodecError, match="coordinate 3"):
        codec.rounded(model)
    with pytest.raises(CodecError, match="coordinate 3"):
        codec.encode_model(model, model - weights(), weights())


@pytest.mark.filterwarnings("error")
def test_i16_steps_beyond_float32_are_refused_without_a_warning() -> None:
    tensors = [Param("w", [20, 30])]
    steps = np.ones(600, np.float32)
    steps[7] = 1e30
    numbers = codecs.get("ecq", step=1.0, exact="none").for_tensors(tensors).encode(steps, 1.0)
    rest = bytes([60]) + len(numbers).to_bytes(4, "little") + numbers + codecs.get("planes").encode(steps[:0])
    with pytest.raises(CodecError, match="infinity"):
        codecs.get("grid").for_tensors(tensors).decode(_core.crc32c(rest).to_bytes(4, "little") + rest, 600)


def test_a_tensor_that_does_not_move_takes_no_bytes_and_keeps_its_bits() -> None:
    codec, exact = grid(), weights()
    shown = codec.rounded(exact)
    new = exact.copy()
    new[:60_000] += np.float32(0.01)
    moved = codec.decode(codec.encode_model(new, new - exact, shown), P)
    assert not moved[60_000:].any() and moved[:60_000].any()
    assert len(codec.encode_model(exact, exact - exact, shown)) < 60


@pytest.mark.parametrize("numbers", [0.0, -0.0, 1e-42, 3e38, 1.0, np.float32(1) / 3])
def test_strange_tensors(numbers: float) -> None:
    model = np.full(P, numbers, np.float32)
    codec = grid()
    rounded = codec.rounded(model)
    assert np.isfinite(rounded).all()
    for vector in (rounded, model):
        assert codec.decode(codec.encode(vector), P).tobytes() == vector.tobytes()


def test_one_large_number_among_many_makes_steps_that_float32_can_count() -> None:
    model = weights()
    model[7] = 3e7
    codec = grid(step=0.001)
    rounded = codec.rounded(model)
    step = np.abs(rounded[:60_000][rounded[:60_000] != 0]).min()
    assert abs(rounded[7]) / step <= LARGEST
    assert codec.decode(codec.encode(rounded), P).tobytes() == rounded.tobytes()


def test_i16_any_byte_that_is_wrong_is_refused() -> None:
    codec = codecs.get("grid").for_tensors(TENSORS[3:])
    payload = codec.encode(codec.rounded(weights()[-110:]))
    wrong = [payload[:n] for n in range(len(payload))] + [payload + b"\0"]
    wrong += [payload[:at] + bytes([payload[at] ^ 1 << at % 8]) + payload[at + 1 :] for at in range(len(payload))]
    for bad in wrong:
        with pytest.raises(CodecError):
            codec.decode(bad, 110)


@given(data=st.data())
def test_i16_a_hostile_payload_with_a_right_crc_is_numbers_or_refused(data: st.DataObject) -> None:
    codec = codecs.get("grid").for_tensors(TENSORS[3:])
    rest = bytearray(codec.encode(codec.rounded(weights()[-110:]))[4:])
    for _ in range(data.draw(st.integers(1, 3))):
        rest[data.draw(st.integers(0, len(rest) - 1) | st.integers(0, 12))] = data.draw(st.integers(0, 255))
    try:
        found = codec.decode(_core.crc32c(bytes(rest)).to_bytes(4, "little") + bytes(rest), 110)
    except CodecError:
        return
    assert np.isfinite(found).all()


@pytest.mark.parametrize("step", [0, -1, 5, "fine"])
def test_a_step_that_no_model_can_have_is_refused(step: object) -> None:
    with pytest.raises(UsageError, match="grid: step is"):
        codecs.get("grid", step=step)
