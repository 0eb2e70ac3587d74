"""A script run under one instruction set, in a process of its own: the set is chosen at import."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest


def run(isa, script):
    """The set in use and the float32 numbers that the script wrote; skips where this processor lacks the set."""
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "EDGEFL_ISA": isa}, capture_output=True, check=False
    )
    if b"not supported by this processor" in done.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode().strip(), np.frombuffer(done.stdout, np.float32)
