"""Daemons whose system calls fail, or at one of which they are killed: strace puts the faults there.

crash_server.py runs the daemons; what a test checks afterwards is its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import running
from conftest import ROOT

CALLS = ["fsync", "fdatasync", "rename", "write", "pwrite64", "ftruncate"]
FAULTS = ["error=EIO", "error=ENOSPC", "signal=SIGKILL"]
EVERY = os.environ.get("EDGEFL_STRACE") == "all"  # `make soak-strace`
SAMPLE = 1 if EVERY else 7  # one of so many calls


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
    """Runs of a daemon, each in a folder of its own that `prepare` fills, traced by strace."""

    def __init__(self, base: Path, prepare: Callable[[Path], None]) -> None:
        self._strace, self.base, self._number, self._prepare = require_strace(), base, 0, prepare
        self._server = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "support" / "crash_server.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, what: str, call: str, fault: str) -> tuple[Path, int, bool]:
        """With a fault injected into one system call: the folder, the exit code (or minus the signal), and whether the
        fault was injected."""
        folder, code, text = self.traced(what, ["-qq", "-e", f"trace={call}", "-e", f"inject={call}:{fault}"])
        return folder, code, "INJECTED" in text or "SIGKILL" in text

    def traced(self, what: str, options: list[str]) -> tuple[Path, int, str]:
        """The folder, the exit code, and what strace wrote with these options."""
        self._number += 1
        folder = self.base / f"{what}-{self._number}"
        folder.mkdir()
        self._prepare(folder)
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(f"{what} {folder}\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        wait(pid, "State:\tT")
        trace = folder / "trace"
        words = [self._strace, "-f", "-o", str(trace), "-p", str(pid), *options]
        tracer = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait(pid, f"TracerPid:\t{tracer.pid}")
        os.kill(pid, signal.SIGCONT)
        code = os.waitstatus_to_exitcode(int(self._server.stdout.readline()))
        tracer.wait(10.0)
        return folder, code, trace.read_text()

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


def at_every_call(
    crashes: Crashes, what: str, fault: str, check: Callable[[Path, int], int], whole: int, *, sample: int = SAMPLE
) -> None:
    """A run for each system call of saving, or a sample of them, whose folder is then checked. `check` gives how far a
    run came; `whole` is the end."""
    injected, codes, reached = 0, set(), set()
    for index, call in enumerate(CALLS):
        number = 1 + (index + FAULTS.index(fault)) % sample
        while True:
            folder, code, hit = crashes.run(what, call, f"{fault}:when={number}")
            where = f"{what}, {call} number {number}: {fault}, exit code {code}, {folder}"
            try:
                if not hit:
                    assert code == 0
                    break
                check_end(folder, code, fault)
                if (folder / "state").exists() and any((folder / "state").glob("*.db")):
                    reached.add(check(folder, code))
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error
            shutil.rmtree(folder)
            codes.add(code)
            injected, number = injected + 1, number + sample
    assert codes - {0} and {0, whole} <= reached
    print(f"{what}, {fault}: {injected} faults, exit codes {codes}, rounds {reached}")
