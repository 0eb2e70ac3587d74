"""Payloads of former releases always decode to the same bits. tests/golden/write.py writes those of a new codec."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
from conftest import ROOT

from edgefl.codecs.entropy_coded import ENERGIES, LANES, LIVE
from edgefl.core.accumulator import SCALE, Accumulator

FOLDER = ROOT / "tests" / "golden"
SPEC = spec_from_file_location("golden_write", FOLDER / "write.py")
assert SPEC is not None and SPEC.loader is not None
WRITE = module_from_spec(SPEC)
SPEC.loader.exec_module(WRITE)


@pytest.mark.parametrize("name", WRITE.CASES)
def test_golden_payload_decodes_to_the_same_bits(name):
    payload = (FOLDER / f"{name}.payload").read_bytes()
    decoded = (FOLDER / f"{name}.decoded").read_bytes()
    codec, delta = WRITE.case(name)
    assert codec.decode(payload, len(delta)).astype("<f4").tobytes() == decoded
    accumulator = Accumulator(len(delta))
    codec.accumulate(payload, 3, accumulator)
    fixed = np.rint(np.frombuffer(decoded, "<f4").astype(np.float64) * SCALE).astype(np.int64)
    assert (accumulator.acc == 3 * fixed).all()


@pytest.mark.parametrize("name", WRITE.CASES)
def test_golden_payload_is_what_is_written_today(name):
    """Not a promise between releases; on one machine a change of the encoder should be meant."""
    codec, delta = WRITE.case(name)
    assert codec.encode(delta, rms=WRITE.RMS) == (FOLDER / f"{name}.payload").read_bytes()


@pytest.mark.parametrize("name", WRITE.WITH_ENERGIES)
def test_golden_payloads_with_energies_have_some(name):
    assert (FOLDER / f"{name}.payload").read_bytes()[4] & ENERGIES


@pytest.mark.parametrize(("name", "lanes"), [("ecq-live", 1), ("ecq-live-16-lanes", 16)])
def test_golden_payloads_leave_dead_rows_out(name, lanes):
    codec, delta = WRITE.case(name)
    payload = (FOLDER / f"{name}.payload").read_bytes()
    assert LANES[payload[4] & 3] == lanes
    assert payload[4] & LIVE and not codec.with_forms([]).encode(delta, rms=WRITE.RMS)[4] & LIVE


def test_golden_payloads_are_not_written_again(monkeypatch):
    monkeypatch.setattr(WRITE, "FOLDER", FOLDER)
    with pytest.raises(SystemExit, match="never written again"):
        WRITE.main(["raw32"])
