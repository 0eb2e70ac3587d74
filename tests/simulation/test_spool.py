"""Large updates of simulated devices, in memory and in a file: read as they were, and their room is used again."""

import errno
import os

import numpy as np
import pytest
from msgspec.structs import replace

import edgefl
from edgefl.errors import StoreError
from edgefl.protocol.envelope import Envelope, Kind
from edgefl.protocol.parts import Splitter
from edgefl.simulation.tasks.spool import PAGE, Kept, Spool


def blob(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize("room", [0, 10 * PAGE])
def test_what_is_kept_reads_as_the_blob_does(room: int):
    spool, data = Spool(room), blob(3 * PAGE + 17)
    kept = spool.keep(data)
    assert isinstance(kept, Kept) and len(kept) == len(data) and kept[:] == data
    for piece in (slice(0, 5), slice(PAGE - 1, PAGE + 1), slice(PAGE, 2 * PAGE), slice(2 * PAGE, 10**9), slice(9, 9)):
        assert kept[piece] == data[piece]


def test_parts_of_what_is_kept_are_those_of_the_blob():
    data, terms = blob(5 * PAGE), {"kind": Kind.UPDATE, "codec": 1, "federation": 2, "round": 3, "version": 4}
    ours, theirs = Splitter(Spool(0).keep(data), 50_000, **terms), Splitter(data, 50_000, **terms)
    marks = set()
    for number in range(ours.parts):
        slip, message = ours.part(number), theirs.part(number)
        assert len(slip) == len(message) and not slip.startswith(b"{")
        found, expected = Envelope.from_bytes(slip), Envelope.from_bytes(message)
        marks.add(found.blob)
        assert replace(found, blob=expected.blob) == expected
    assert len(marks) == 1


def test_parts_of_two_blobs_do_not_mix():
    spool, data = Spool(), blob(2 * PAGE)
    assert spool.keep(data).blob_id != spool.keep(data).blob_id


def test_small_blobs_are_not_kept_elsewhere():
    data = blob(PAGE - 1)
    assert Spool(0).keep(data) is data


def test_room_and_pages_are_used_again():
    spool = Spool(2 * PAGE)
    for seed in range(50):
        in_memory, in_file = spool.keep(blob(2 * PAGE, seed)), spool.keep(blob(2 * PAGE + 1, seed + 100))
        assert in_memory[:] == blob(2 * PAGE, seed) and in_file[:] == blob(2 * PAGE + 1, seed + 100)
    assert spool._file is not None and os.fstat(spool._file).st_size <= 10 * PAGE  # the new ones, and those before them
    spool.close()


def test_a_run_is_the_same_with_all_updates_in_the_file(monkeypatch: pytest.MonkeyPatch):
    options = {"devices": 12, "rounds": 2, "fraction": 0.5, "codec": "raw32", "seed": 4}
    before = edgefl.simulate("mlp:64-300-10", "digits", **options)
    monkeypatch.setattr(Spool.__init__, "__defaults__", (0, PAGE))
    written = []
    monkeypatch.setattr(
        Spool, "write", lambda self, data, write=Spool.write: written.append(len(data)) or write(self, data)
    )
    after = edgefl.simulate("mlp:64-300-10", "digits", **options)
    assert len(written) == 12 and min(written) > PAGE
    assert after.params.tobytes() == before.params.tobytes()
    assert after.rounds == before.rounds


def test_what_the_disk_takes_in_pieces_is_whole(monkeypatch: pytest.MonkeyPatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, view, at: write(file, view[:1000], at))
    data = blob(2 * PAGE + 5)
    assert Spool(0).keep(data)[:] == data


@pytest.mark.filterwarnings("error")
def test_a_full_disk_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch):
    def full(file: int, view: memoryview, at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match=r"No space left on device.*TMPDIR"):
        Spool(0).keep(blob(PAGE))
