"""The spill: bounded, refused beforehand, read in chunks, and the rules that are built on it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgefl import codecs
from edgefl.errors import CodecError, StoreError, UsageError
from edgefl.strategies import Site, Update
from edgefl.strategies.combine.spilled import Spilled
from edgefl.strategies.composed import Composed
from edgefl.strategies.server.step import Step
from edgefl.strategies.spill import Spill

RAW = codecs.get("raw32")


class Median(Spilled):
    def rule(self, deltas: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.median(deltas, axis=0)


@pytest.mark.parametrize("chunk_bytes", [1, 100, 2**24])
def test_every_update_comes_back_in_chunks_in_the_order_of_devices(tmp_path: Path, chunk_bytes: int) -> None:
    deltas = np.random.default_rng(0).normal(size=(5, 37)).astype(np.float32)
    spill = Spill(37, 10_000, folder=tmp_path)
    for row in (3, 0, 4, 1, 2):
        spill.add((f"dev-{row}", 0, 0), deltas[row], 10 + row)
    back, covered = np.full((5, 37), np.nan, np.float32), 0
    for where, rows in spill.chunks(chunk_bytes):
        assert rows.nbytes <= max(chunk_bytes, 4 * 5)
        back[:, where], covered = rows, covered + rows.shape[1]
    assert covered == 37
    assert back.tobytes() == deltas.tobytes()
    assert spill.weights.tolist() == [10, 11, 12, 13, 14]


def test_the_file_has_no_name_and_its_room_is_reserved_beforehand(tmp_path: Path) -> None:
    spill = Spill(1000, 10**6, reports=200, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(spill._file.fileno()).st_blocks * 512 >= 200 * 4000


def test_what_can_not_fit_is_refused_before_the_first_round(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"26 updates of 10000 params take 1040000 bytes .*: raise spill_mb"):
        Spill(10_000, 10**6, reports=26, folder=tmp_path)
    with pytest.raises(UsageError, match=r"no 40 bytes for a round's updates in .*nowhere"):
        Spill(10, 10**6, folder=tmp_path / "nowhere")
    strategy = Composed("median", combine=Median(), server=Step(1.0))
    with pytest.raises(UsageError, match="2 updates of 4 params"):
        strategy.prepare(Site(4, 4, reports=2, spill_bytes=31, folder=tmp_path))


def test_a_full_spill_refuses_the_next_update_and_keeps_the_others(tmp_path: Path) -> None:
    spill = Spill(2, 17, folder=tmp_path)
    for device in "ab":
        spill.add((device, 0, 0), np.float32([1, 2]), 1)
    with pytest.raises(CodecError, match="no room for more than 2 updates: raise spill_mb"):
        spill.add(("c", 0, 0), np.float32([3, 4]), 1)
    ((_, rows),) = spill.chunks()
    assert rows.tolist() == [[1, 2], [1, 2]]
    spill.clear()
    assert len(spill) == 0
    spill.add(("c", 0, 0), np.float32([3, 4]), 1)


def test_a_broken_disk_is_an_error_of_the_store(tmp_path: Path) -> None:
    spill = Spill(2, 100, folder=tmp_path)
    spill.add(("a", 0, 0), np.float32([1, 2]), 1)
    os.ftruncate(spill._file.fileno(), 4)
    with pytest.raises(StoreError, match="can't be read"):
        list(spill.chunks())


def test_a_rule_that_needs_every_update(tmp_path: Path) -> None:
    strategy = Composed("median", combine=Median(), server=Step(1.0))
    strategy.prepare(Site(3, 3, reports=3, folder=tmp_path))
    strategy.start(np.float32([10, 10, 10]), 1)
    strategy.add(Update("z", 1, RAW, RAW.encode(np.float32([9, 9, 9]))))
    strategy.start(np.float32([10, 10, 10]), 1)  # the round before was abandoned
    for device, delta, stale in (("a", [1, 5, -1], 0), ("b", [2, 0, -1], 0), ("c", [60, -2, 7], 3)):
        strategy.add(Update(device, 4, RAW, RAW.encode(np.float32(delta)), stale))
    with pytest.raises(CodecError):
        strategy.add(Update("d", 0, RAW, RAW.encode(np.float32([1, 1, 1]))))
    # of c, three versions late, a half is left: [30, -1, 3.5]
    assert strategy.finish().tolist() == [12, 10, 9]
