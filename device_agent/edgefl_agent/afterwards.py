"""Afterwards: tells the device's own programs that there is another model: by a command, or by a signal.

The command runs in a thread, so the agent goes on meanwhile. It runs once at a time: if another model comes while it
runs, it runs once more.
"""

from __future__ import annotations

import logging
import os
import signal
import threading

from edgefl.hosting.programs import run

from .model_config import ModelConfig

LONGEST_PID = 32  # bytes of a pid file
FIRST_PID = 2  # 0, 1 and negative numbers mean others than one process
log = logging.getLogger("edgefl.agent")


class Afterwards:
    """What [model] says of it."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._again = self._running = False

    def tell(self) -> None:
        """The files were replaced."""
        if self._config.pid_file:
            self._send(self._config.pid_file)
        if not self._config.command:
            return
        with self._lock:
            self._again = True
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, name="after-model", daemon=True).start()

    def _run(self) -> None:
        while self._is_due():
            answer = run(self._config.command, self._config.command_s)
            if answer.code != 0:
                log.error("[model] command %s %s", self._config.command[0], answer.line or f"ended with {answer.code}")

    def _is_due(self) -> bool:
        with self._lock:
            due, self._again = self._again, False
            self._running = due
            return due

    def _send(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                text = file.read(LONGEST_PID + 1).strip()
            if not text.isdigit() or len(text) > LONGEST_PID or int(text) < FIRST_PID:
                log.error("[model] pid_file %s has no number of a process", path)
                return
            os.kill(int(text), getattr(signal, f"SIG{self._config.signal}"))
        except (OSError, OverflowError) as error:
            log.error("[model] pid_file %s: %s", path, getattr(error, "strerror", None) or error)
