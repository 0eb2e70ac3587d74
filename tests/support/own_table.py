"""A table as a newcomer has one: columns of unlike size, blanks, text labels; and a shell for a page's commands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

STATES = ("ok", "worn", "fault")


def write_table(path: Path, rows: int = 300, seed: int = 0) -> Path:
    """Three states of a machine, by temperature, speed and load; every 29th temperature is missing."""
    rng = np.random.default_rng(seed)
    lines = ["temp,rpm,load,state"]
    for row in range(rows):
        kind = row * 7 % 3
        temp = "" if row % 29 == 0 else f"{40 + 15 * kind + rng.normal():.2f}"
        rpm, load = 1500 + 300 * kind + 50 * rng.normal(), 0.01 * kind + 0.002 * rng.normal()
        lines.append(f"{temp},{rpm:.0f},{load:.4f},{STATES[kind]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def commands(page: str) -> str:
    """The shell blocks of a page, in order."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


def as_root(script: str) -> str:
    """The same commands, for a mosquitto that would drop to a user who may not read this folder."""
    return re.sub(r"^(?=\S*mosquitto -c )", 'echo "user root" >> $(find . -name mosquitto.conf)\n', script, flags=re.M)


@contextmanager
def shell(script: str, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A shell that runs these commands; what they start ends with it."""
    path = f"{Path(sys.executable).parent}:/usr/sbin:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "EDGEFL_TRUST_CLOCK": "1"}
    with open(log, "wb") as out:
        one = subprocess.Popen(
            ["bash", "-e"], stdin=subprocess.PIPE, stdout=out, stderr=out, cwd=folder, env=environment,
            start_new_session=True,
        )  # fmt: skip
        assert one.stdin is not None
        one.stdin.write(script.encode() + b"\nwait\n")
        one.stdin.close()
    try:
        yield one
    finally:
        os.killpg(one.pid, signal.SIGTERM)
        one.wait(20.0)
