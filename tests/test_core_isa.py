"""Every instruction set trains alike, and one of them always gives the same bits."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import sys
import numpy as np
from edgefl import _core
from edgefl.plan import Node, Param, Plan
from edgefl.trainer import Trainer

sizes = [37, 65, 200, 10]
nodes, params = [], []
for i, (wide, out) in enumerate(zip(sizes, sizes[1:])):
    params += [Param(f"w{i}", [wide, out]), Param(f"b{i}", [out])]
    nodes += [Node("dense", [2 * i], [2 * i, 2 * i + 1]), Node(("tanh", "sigmoid", "softmax")[i], [2 * i + 1])]
plan = Plan([37], nodes, params, "cross_entropy", 5, 6)
rng = np.random.default_rng(0)
w = rng.standard_normal(plan.num_params).astype(np.float32) * 0.2
x, y = rng.standard_normal((53, 37)).astype(np.float32), rng.integers(0, 10, 53)
trainer = Trainer(plan)
result = trainer.fit(w, x, y, epochs=2, lr=0.05, momentum=0.9, clip_norm=1.0, seed=3)
print(trainer.isa, file=sys.stderr)
sys.stdout.buffer.write(result.delta.tobytes() + trainer.predict(w, x).tobytes())
"""


def run(isa, script=SCRIPT):
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "EDGEFL_ISA": isa}, capture_output=True, check=False
    )
    if b"not supported by this processor" in done.stderr:
        pytest.skip(f"this processor has no {isa}")
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode().strip(), np.frombuffer(done.stdout, np.float32)


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_each_instruction_set_agrees_with_the_baseline(isa):
    name, got = run(isa)
    baseline, expected = run("baseline")
    assert (name, baseline) == (isa, "baseline")
    assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_the_same_instruction_set_gives_the_same_bits(isa):
    assert len({hashlib.sha256(run(isa)[1].tobytes()).digest() for _ in range(2)}) == 1


def test_an_unknown_instruction_set_is_an_import_error():
    done = subprocess.run(
        [sys.executable, "-c", "import edgefl._core"],
        env={**os.environ, "EDGEFL_ISA": "mmx"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ImportError: EDGEFL_ISA=mmx" in done.stderr
    assert "use baseline, avx2 or avx512" in done.stderr
