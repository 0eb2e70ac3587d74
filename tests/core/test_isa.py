"""Every instruction set trains alike, and one of them always gives the same bits."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from isa_runs import run

SCRIPT = """
import sys
import numpy as np
from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer

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

OTHERS = """
import sys
import numpy as np
from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer

functions = [("leaky_relu", [], [0.1]), ("hard_sigmoid", [], [0.2, 0.5]), ("hard_swish", [], []), ("gelu", [0], []),
             ("gelu", [1], []), ("erf", [], []), ("exp", [], []), ("abs", [], []), ("elu", [], [1.0]),
             ("softplus", [], []), ("sqrt", [], []), ("log", [], []), ("pow", [], [1.5])]
nodes = [Node("dense", [0], [0]), Node("batch_norm", [1], [1, 2, 5, 6], [], [1e-3, 0.9]),
         Node("clip", [2], [], [], [-2, 2])]
for op, ints, floats in functions:
    source = 3 if op not in ("sqrt", "log", "pow") else 13  # softplus's, which is positive
    nodes.append(Node(op, [source], [], ints, floats))
nodes.append(Node("concat", list(range(4, 12)), [], [1]))
nodes.append(Node("concat", list(range(12, 17)), [], [1]))
nodes.append(Node("layer_norm", [17], [3, 4], [], [1e-3]))
nodes.append(Node("dropout", [19], [], [], [0.3]))
nodes.append(Node("mean", [20], [], [1]))
nodes.append(Node("mean", [18], [], [1]))
nodes.append(Node("div", [21, 22], [], [0]))
nodes.append(Node("transpose", [20], [], [1, 0]))
nodes.append(Node("mean", [24], [], [0]))
nodes.append(Node("sub", [25, 23], [], [1]))
params = [Param("w", [19, 19]), *(Param(f"p{i}", [19 if i < 2 else 152]) for i in range(4)),
          *(Param(name, [19], False) for name in "mv")]
plan = Plan([5, 19], nodes, params, "huber", len(nodes), len(nodes))
rng = np.random.default_rng(0)
w = np.float32(np.concatenate([rng.normal(0, 0.2, 361), rng.uniform(0.5, 1.5, plan.num_params - 361)]))
x, y = rng.standard_normal((23, 5, 19)).astype(np.float32), rng.random((23, 5))
trainer = Trainer(plan)
result = trainer.fit(w, x, y, epochs=2, lr=0.01, momentum=0.9, seed=3)
print(trainer.isa, file=sys.stderr)
sys.stdout.buffer.write(result.delta.tobytes() + trainer.predict(w, x).tobytes())
"""

CONVOLUTIONS = """
import sys
import numpy as np
from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer

params, nodes = [], []
for i, (kernel, wide, out) in enumerate([(3, 5, 32), (3, 32, 40), (5, 40, 17)]):  # the second by Winograd's transforms
    params += [Param(f"w{i}", [kernel, kernel, wide, out]), Param(f"b{i}", [out])]
    pads = [kernel // 2] * 4
    nodes += [Node("conv", [2 * i], [2 * i, 2 * i + 1], [1, 1, *pads, 1, 1, 1]), Node("tanh", [2 * i + 1])]
plan = Plan([6, 8, 5], nodes, params, "mse", 6, 6)
rng = np.random.default_rng(0)
w = rng.standard_normal(plan.num_params).astype(np.float32) * 0.05
x, y = rng.standard_normal((9, 6, 8, 5)).astype(np.float32), rng.random((9, 6, 8, 17))
trainer = Trainer(plan)
result = trainer.fit(w, x, y, epochs=2, batch_size=3, lr=0.1, seed=3)
print(trainer.isa, file=sys.stderr)
sys.stdout.buffer.write(result.delta.tobytes() + trainer.predict(w, x).tobytes())
"""


@pytest.mark.parametrize("script", [SCRIPT, OTHERS, CONVOLUTIONS], ids=["dense", "others", "convolutions"])
@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_each_instruction_set_agrees_with_the_baseline(isa, script):
    name, got = run(isa, script)
    baseline, expected = run("baseline", script)
    assert (name, baseline) == (isa, "baseline")
    assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("script", [SCRIPT, CONVOLUTIONS], ids=["dense", "convolutions"])
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_the_same_instruction_set_gives_the_same_bits(isa, script):
    assert len({hashlib.sha256(run(isa, script)[1].tobytes()).digest() for _ in range(2)}) == 1


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
