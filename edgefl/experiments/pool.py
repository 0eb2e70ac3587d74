"""Pool: several processes that run tasks, one at a time each. A process that dies fails its task alone."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

import msgspec

from .worker import Answer, Task

COMMAND = [sys.executable, "-m", "edgefl.experiments.worker"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SAFE = {"PYTHONSAFEPATH": "1"}  # no module of the current folder is taken for one of the library


def run_all(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[Task, str]]:
    """Each task as it ends, with "" or why it failed. What is under way is ended if the caller stops iterating."""
    idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
    processes = [_Process() for _ in range(min(jobs, len(tasks)))]
    for process in processes:
        idle.put(process)

    def run(task: Task) -> str:
        process = idle.get()
        try:
            return process.run(task)
        finally:
            idle.put(process)

    threads = ThreadPoolExecutor(max(1, len(processes)))
    try:
        under_way = {threads.submit(run, task): task for task in tasks}
        for future in as_completed(under_way):
            yield under_way[future], future.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.stop()


class _Process:
    """One worker, started when it gets a task, and again after it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, task: Task) -> str:
        """Wait for a task's end; "" or why it failed."""
        process = self._process = self._process or _start()
        assert process.stdin is not None and process.stdout is not None
        line = b""
        with suppress(OSError, ValueError):  # it has died, or was stopped
            process.stdin.write(msgspec.json.encode(task) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if line.endswith(b"\n"):
            return msgspec.json.decode(line, type=Answer).error
        self._process, code = None, process.wait()
        _close(process)
        why = "it was killed, perhaps for lack of memory" if code == -9 else "see the messages above"
        return f"its process ended with {code}: {why}"

    def stop(self) -> None:
        """End the process, at whatever it is."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait()
            _close(process)


def _start() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, sys.path))  # where plug-ins are found
    environment = {**os.environ, **ONE_THREAD, **SAFE, "PYTHONPATH": path}
    return subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError, ValueError):
            if pipe is not None:
                pipe.close()
