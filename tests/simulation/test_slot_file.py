"""What devices keep from round to round is in a file where there is much of it, and the run is the same."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from fake_ray import FakeRay

import edgefl
from edgefl.device.slots import Slot
from edgefl.simulation.resume import journal
from edgefl.simulation.tasks import ray_pool, slot_file
from edgefl.simulation.tasks.slot_file import SlotFile, whole
from edgefl.simulation.tasks.spool import Spool

FLEET = {"model": "mlp:64-32-10", "data": "digits", "devices": 8, "rounds": 5, "fraction": 0.6, "seed": 4}
STATEFUL = {
    "scaffold": {"strategy": "scaffold", "codec": "raw32"},
    "feddyn": {"strategy": "feddyn", "codec": "raw32"},
    "mifa": {"strategy": "mifa"},
    "ditto": {"strategy": "ditto", "holdout": 0.2},
    "residuals": {"codec": "ecq"},
}


@pytest.fixture
def written(monkeypatch):
    """No slot stays in memory; the sizes of those that went to the file."""
    monkeypatch.setattr(slot_file, "ROOM", 0)
    sizes, write = [], Spool.write
    monkeypatch.setattr(Spool, "write", lambda self, blob: sizes.append(len(blob)) or write(self, blob))
    return sizes


@pytest.mark.parametrize("name", STATEFUL)
def test_a_run_is_the_same_with_all_slots_in_the_file(name, request):
    before = edgefl.simulate(**FLEET, **STATEFUL[name])
    written = request.getfixturevalue("written")
    after = edgefl.simulate(**FLEET, **STATEFUL[name], workers=3)
    assert len(written) > 10
    assert after.params.tobytes() == before.params.tobytes() and after.rounds == before.rounds


def test_i33_a_run_is_resumed_with_all_slots_in_the_file(tmp_path, monkeypatch, request):
    monkeypatch.setattr(journal, "LEAST_S", 0.0)
    monkeypatch.setattr(journal, "SHARE", 1e9)
    before = edgefl.simulate(**FLEET, **STATEFUL["scaffold"])
    request.getfixturevalue("written")

    class Stopped(BaseException):
        pass

    def stop(record) -> None:
        if record.round == 3:
            raise Stopped

    with pytest.raises(Stopped):
        edgefl.simulate(**FLEET, **STATEFUL["scaffold"], resume=tmp_path / "run.db", on_round=stop)
    after = edgefl.simulate(**FLEET, **STATEFUL["scaffold"], resume=tmp_path / "run.db")
    assert after.final == before.final and after.rounds == before.rounds


def test_another_machine_gets_the_slots_themselves(monkeypatch, request):
    before = edgefl.simulate(**FLEET, **STATEFUL["scaffold"])
    request.getfixturevalue("written")
    monkeypatch.setattr(ray_pool, "_ray", lambda: FakeRay())
    assert edgefl.simulate(**FLEET, **STATEFUL["scaffold"], engine="ray").final == before.final


@pytest.mark.parametrize("size", [0, 1, slot_file.PAGE, 5 * slot_file.PAGE + 3])
@pytest.mark.parametrize("room", [0, 10**6])
def test_a_slot_is_whole_again(size, room):
    file, blob = SlotFile(room), np.random.default_rng(1).bytes(size)
    slot = Slot("run", 3, blob, 7)
    kept = file.keep(slot)
    assert whole(kept) == slot and type(whole(kept).blob) is bytes
    assert len(kept.blob) == size
    file.close()


MEMORY = """
import edgefl
seen = set()
def look(record):
    seen.update(record.devices)
    resident = int(open("/proc/self/statm").read().split()[1]) * 4096
    print(len(seen), resident, flush=True)
edgefl.simulation.tasks.slot_file.ROOM = 2**20
edgefl.simulate(
    "mlp:64-256-10", "digits", devices=2000, rounds=12, fraction=0.1, partition="windows:2", strategy="scaffold",
    codec="raw32", seed=1, on_round=look, workers=1,
)
"""


def test_memory_does_not_grow_with_the_slots_of_devices_that_were_visited():
    """A control variate of this model has 77 kB; a device's own objects have an eighth of that."""
    code = "import edgefl.simulation.tasks.slot_file" + MEMORY
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seen, resident = np.array([line.split() for line in done.stdout.splitlines()], float).T
    assert seen[-1] - seen[2] > 800
    assert (resident[-1] - resident[2]) / (seen[-1] - seen[2]) < 30_000
