"""The frozen part of a model on an agent's disk."""

from __future__ import annotations

import os

import frozen
from edgefl_agent.base_file import NAME, BaseFile

from edgefl.core.params import params_to_bytes
from edgefl.device.events import KeepBase

NUMBERS = params_to_bytes(frozen.FROZEN)
ACTION = KeepBase(frozen.MANIFEST.base.sha256, NUMBERS)


def test_it_is_there_at_the_next_start(tmp_path):
    assert BaseFile(tmp_path, 10**6).load() == b""
    BaseFile(tmp_path, 10**6).keep(ACTION)
    assert BaseFile(tmp_path, 10**6).load() == NUMBERS
    BaseFile(tmp_path, 10**6).keep(KeepBase("0" * 64, NUMBERS[:8]))
    assert BaseFile(tmp_path, 10**6).load() == NUMBERS[:8] and os.listdir(tmp_path) == [NAME]


def test_what_a_kill_left_half_written_goes_and_nothing_else(tmp_path):
    half, others = tmp_path / f".{NAME}.77.partial", tmp_path / ".manifest.json.78.partial"
    for path in (half, others):
        path.write_bytes(NUMBERS[:9])
    BaseFile(tmp_path, 10**6).load()
    assert not half.exists() and others.exists()


def test_it_is_bounded_both_ways(tmp_path):
    BaseFile(tmp_path, 8).keep(ACTION)
    assert not os.listdir(tmp_path)
    (tmp_path / NAME).write_bytes(NUMBERS)
    assert BaseFile(tmp_path, 8).load() == b""


def test_a_disk_that_fails_is_no_error(tmp_path, caplog):
    BaseFile(tmp_path / "gone", 10**6).keep(ACTION)
    assert "make room" in caplog.text
    (tmp_path / NAME).mkdir()
    assert BaseFile(tmp_path, 10**6).load() == b""
