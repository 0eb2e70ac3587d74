"""crc32c, fixed-point accumulation and the finiteness checks of the core."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl import _core

# RFC 3720 appendix B.4, and the check value of the CRC catalogue.
CRC32C = {
    b"": 0,
    b"123456789": 0xE3069283,
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(reversed(range(32))): 0x113FDB5C,
}


@pytest.mark.parametrize("data", CRC32C)
def test_crc32c_known_values(data):
    assert _core.crc32c(data) == CRC32C[data]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_crc32c_continues(data, cut):
    assert _core.crc32c(data[cut:], _core.crc32c(data[:cut])) == _core.crc32c(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_crc32c_takes_any_buffer(kind):
    assert _core.crc32c(kind(b"123456789")) == 0xE3069283


def test_crc32c_table_equals_the_instruction():
    code = "from edgefl._core import crc32c; print(*[crc32c(bytes(range(n))) for n in range(256)])"
    baseline = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "EDGEFL_ISA": "baseline"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert baseline.split() == [str(_core.crc32c(bytes(range(n)))) for n in range(256)]


@given(data=st.data())
def test_accumulate_is_the_rounded_fixed_point_sum(data):
    numbers = st.floats(-(2.0**10), 2.0**10, width=32)
    x = np.array(data.draw(st.lists(numbers, max_size=20)), "<f4")
    weight = data.draw(st.integers(1, 2**20))
    acc = np.arange(len(x), dtype=np.int64)
    expected = acc + weight * np.rint(x.astype(np.float64) * 2**30).astype(np.int64)
    _core.accumulate_f32(x.tobytes(), weight, acc)
    assert (acc == expected).all()
    assert _core.peak_f32(x.tobytes()) == np.abs(x).max(initial=0)


def long_payload() -> np.ndarray:
    """10,001 float32 of all sizes up to 2^32, and numbers halfway between two of the grid."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal(10_001).astype("<f4") * np.exp2(rng.integers(-40, 32, 10_001)).astype("<f4")
    x[::7] = (rng.integers(-(2**22), 2**22, len(x[::7])) + 0.5) * 2.0**-30
    x[[0, 5000, 10_000]] = [2.0**21, -(2.0**21), np.nextafter(np.float32(2**21), np.float32(0))]
    return x


@pytest.mark.parametrize("weight", [1, 600, 2**32])
def test_accumulate_is_exact_at_every_size_and_address(weight):
    x = long_payload()
    start = np.arange(len(x), dtype=np.int64) - 5000
    integers = np.rint(x.astype(np.float64) * 2**30).astype(np.int64)
    for skip in range(4):
        acc = start.copy()
        _core.accumulate_f32(memoryview(bytes(skip) + x.tobytes())[skip:], weight, acc)
        assert (acc == start + integers * np.int64(weight)).all()


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_accumulate_gives_the_same_bits_on_every_isa(isa):
    code = (
        "import sys, zlib, numpy as np; from edgefl import _core; from test_core import long_payload\n"
        "x = long_payload(); acc = np.zeros(len(x), np.int64); _core.accumulate_f32(x.tobytes(), 77, acc)\n"
        "print(zlib.crc32(acc.tobytes()), _core.peak_f32(x[1:].tobytes()))"
    )

    def run(**isa: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, **isa, "PYTHONPATH": path}
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    other = run(EDGEFL_ISA=isa)
    if other.returncode and "EDGEFL_ISA" in other.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert other.stdout == run().stdout != ""


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 16, 40])
def test_what_is_not_finite_is_seen(bad, place):
    x = np.ones(41, np.float32)
    assert _core.all_finite(x)
    x[place] = bad
    assert not _core.all_finite(x)
    assert _core.peak_f32(x.tobytes()) == np.inf


def test_wrong_lengths_are_refused():
    acc = np.zeros(2, np.int64)
    for payload in (b"", bytes(7), bytes(12)):
        with pytest.raises(ValueError):
            _core.accumulate_f32(payload, 1, acc)
    with pytest.raises(ValueError):
        _core.peak_f32(b"123")
    with pytest.raises(TypeError):
        _core.accumulate_f32(None, 1, acc)
    assert not acc.any()


@pytest.mark.parametrize("weight", [1, 600, -7])
def test_fixed_point_is_what_the_accumulator_adds(weight):
    x = np.append(np.random.default_rng(0).standard_t(2, 300), [0, -0.0, 1e-12, 2.0**20, -(2.0**31)]).astype(np.float32)
    fixed, peak = _core.to_fixed(x, weight)
    assert (fixed == np.rint(x.astype(np.float64) * 2**30).astype(np.int64) * weight).all() and peak == 2.0**31
    assert _core.to_fixed(x[:0], weight)[1] == 0
    for wrong in (np.nan, np.inf, -np.inf):
        x[7] = wrong
        assert _core.to_fixed(x, weight)[1] == np.inf


def test_levels_that_do_not_occur_are_zero():
    levels, frequencies = np.arange(1, 257, dtype=np.float32), np.zeros((2, 256), np.uint16)
    frequencies[0, [0, 3]], frequencies[1, [3, 255]] = 1, 4096
    _core.only_occurring(levels, frequencies)
    assert np.flatnonzero(levels).tolist() == [0, 3, 255] and levels[3] == 4
    for few, tables in ((levels[:-1], frequencies), (levels, frequencies[:, :-1].copy()), (levels, frequencies[:0])):
        with pytest.raises(ValueError, match="256"):
            _core.only_occurring(few, tables)
