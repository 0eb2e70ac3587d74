"""EIO, ENOSPC and SIGKILL at each system call by which aggregator and agent save: strace puts them there.

A sample runs with every test; EDGEFL_STRACE=all takes each call in turn: `make soak-strace`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from brokers import running
from conftest import ROOT
from crash_server import MANIFEST, ROUNDS, TOLD, params_of, read_told, reports, update_of
from edgefl_agent.store import AgentStore
from edgefl_broker.store import AggregatorStore
from machines import P, fetching, make_round, of

import edgefl
from edgefl.device.events import StartTraining
from edgefl.history_files import read_records
from edgefl.onnx import zoo
from edgefl.settings.render import dump
from edgefl.strategies.pre.staleness import stale_weight

CALLS = ["fsync", "fdatasync", "rename", "write", "pwrite64", "ftruncate"]
FAULTS = ["error=EIO", "error=ENOSPC", "signal=SIGKILL"]
SAMPLE = 1 if os.environ.get("EDGEFL_STRACE") == "all" else 7  # one of so many calls


def require_strace() -> str:
    """Path of strace, if it may trace; else the test is skipped, or fails where EDGEFL_REQUIRE_STRACE=1."""
    found = shutil.which("strace")
    reason = "strace is not installed: apt-get install strace"
    if found:
        done = subprocess.run([found, "-o", "/dev/null", "true"], capture_output=True, text=True)
        if done.returncode == 0:
            return found
        reason = f"strace may not trace here: {done.stderr.strip()}"
    if os.environ.get("EDGEFL_REQUIRE_STRACE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Crashes:
    """Runs of aggregator or agent, each in a folder of its own, with a fault injected into one system call."""

    def __init__(self, base: Path) -> None:
        self._strace, self.base, self._number = require_strace(), base, 0
        self._server = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "support" / "crash_server.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, what: str, call: str, fault: str) -> tuple[Path, int, bool]:
        """The folder, the exit code (or minus the signal), and whether the fault was injected."""
        self._number += 1
        folder = self.base / f"{what}-{self._number}"
        folder.mkdir()
        prepare(folder)
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(f"{what} {folder}\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        wait(pid, "State:\tT")
        trace = folder / "trace"
        words = ["-f", "-qq", "-o", str(trace), "-p", str(pid), "-e", f"trace={call}", "-e", f"inject={call}:{fault}"]
        tracer = subprocess.Popen([self._strace, *words], stdin=subprocess.DEVNULL)
        wait(pid, f"TracerPid:\t{tracer.pid}")
        os.kill(pid, signal.SIGCONT)
        code = os.waitstatus_to_exitcode(int(self._server.stdout.readline()))
        tracer.wait(10.0)
        text = trace.read_text()
        return folder, code, "INJECTED" in text or "SIGKILL" in text

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(10.0)


def wait(pid: int, line: str) -> None:
    """Until the process has this line in its status."""
    until = time.monotonic() + 10.0
    while line not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < until and running(pid), f"no {line!r}"
        time.sleep(0.002)


def prepare(folder: Path) -> None:
    (folder / "told").write_bytes(bytes(TOLD.size))
    (folder / "start.onnx").write_bytes(zoo.mlp([4, 8, 3], seed=1).SerializeToString())
    np.savez(folder / "data.npz", x=np.zeros((5, 99), np.float32), y=np.zeros(5, np.int64))
    common = {"federation": "tiny", "mqtt": {"url": "mqtt://127.0.0.1"}}
    aggregator = {
        "model": str(folder / "start.onnx"), "state_dir": str(folder / "state"), "loss": "cross_entropy",
        "rounds": {"interval_s": 0.0, "rounds": ROUNDS, "min_reports": 2, "goal": 2, "late": "fold"},
        "codec": {"name": "raw32"}, "downlink": {"name": "raw32"},
    }  # fmt: skip
    agent = {"device_id": "a", "state_dir": str(folder / "state"), "data": {"source": f"npz:{folder}/data.npz"}}
    (folder / "aggregator.toml").write_text(dump({**common, **aggregator}))
    (folder / "agent.toml").write_text(dump({**common, **agent}))


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashes]:
    crashes = Crashes(tmp_path_factory.mktemp("crashes"))
    yield crashes
    crashes.close()


def check_end(folder: Path, code: int, fault: str) -> None:
    """It was killed, or it said what is wrong and what to do, or the fault hit what is not needed."""
    said = (folder / "stderr").read_text()
    if code == -signal.SIGKILL:
        assert "SIGKILL" in fault
        return
    assert "Traceback" not in said
    assert code in (0, 1)
    assert (code == 1) == ("error: " in said), said
    if code == 1:
        assert "can't be kept" in said or "can't open" in said or "can't save" in said or "can't use" in said, said
        assert "check" in said


def expected_models() -> list[np.ndarray]:
    """The model of each version: a round adds the mean of num_examples / round, of what is late with less weight."""
    params = [edgefl.load(zoo.mlp([4, 8, 3], seed=1), loss="cross_entropy").params]
    for number in range(1, ROUNDS + 1):
        total = examples = 0
        for _, n, own in reports(number):
            total += stale_weight(n, number - own) * round(float(np.float32(n / own)) * 2**30)
            examples += n
        params.append(params[-1] + np.float32(total / (examples * 2.0**30)))
    return params


def check_aggregator(folder: Path, code: int) -> int:
    """Durable is one whole round after the other, and all that was announced. Returns their number."""
    told_round, told_version, told_late = read_told(folder)
    store = AggregatorStore(folder / "state")
    models = expected_models()
    state = store.resume(edgefl.load(zoo.mlp([4, 8, 3], seed=1), loss="cross_entropy").plan.hash, models[0])
    records, late = store.records(), [(update.device, update.round) for update in store.late()]
    store.close()
    assert [r.round for r in records] == list(range(1, state.round)) and state.version == len(records)
    assert state.params.tobytes() == models[state.version].tobytes()
    assert told_version <= state.version and told_round <= state.round
    settled = [update for r in records for update in r.folded]
    assert len({*settled, *late}) == len(settled) + len(late), "I01: in a model, and saved to go into another"
    assert not told_late or ("c", told_late) in [*settled, *late], "I06: a late update has its receipt, and is lost"
    assert code != 0 or state.version == ROUNDS
    lines = read_records(folder / "state" / "history.jsonl")
    assert len(lines) <= len(records)
    return state.version


def check_agent(folder: Path, code: int) -> int:
    """The update that was reported is there until the next round; it is not trained again."""
    reported, heard, counted = read_told(folder)
    store = AgentStore(folder / "state")
    saved, residual = store.load(), store.load_slot("residual")
    store.close()
    assert saved is None or saved.blob == update_of(saved.round)[0]
    if reported == heard and reported > 0:
        assert saved is not None and saved.round == reported, "I06: reported, and not durable"
        number = saved.round
        message = make_round(number, number - 1, params=params_of(number), manifest=MANIFEST)
        assert not of(fetching(manifest=MANIFEST, round=message, outbox=saved)[1], StartTraining), "I11: trained twice"
    own = None if residual is None else residual.round
    assert own is None or residual.blob == update_of(own)[1]  # type: ignore[union-attr]
    assert own is None or saved is None or own < saved.round
    assert code != 0 or (saved is not None and saved.round == ROUNDS == counted)
    assert len(update_of(1)[1]) == 4 * P
    return heard


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("what", ["aggregator", "agent"])
def test_i08_i09_i11_at_every_system_call_of_saving(crashes: Crashes, what: str, fault: str) -> None:
    check = {"aggregator": check_aggregator, "agent": check_agent}[what]
    injected, codes, reached = 0, set(), set()
    for index, call in enumerate(CALLS):
        number = 1 + (index + FAULTS.index(fault)) % SAMPLE
        while True:
            folder, code, hit = crashes.run(what, call, f"{fault}:when={number}")
            where = f"{what}, {call} number {number}: {fault}, exit code {code}, {folder}"
            try:
                if not hit:
                    assert code == 0
                    break
                check_end(folder, code, fault)
                if (folder / "state").exists() and any((folder / "state").glob("a*.db")):
                    reached.add(check(folder, code))
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error
            shutil.rmtree(folder)
            codes.add(code)
            injected, number = injected + 1, number + SAMPLE
    assert codes - {0} and {0, ROUNDS} <= reached
    print(f"{what}, {fault}: {injected} faults, exit codes {codes}, rounds {reached}")
