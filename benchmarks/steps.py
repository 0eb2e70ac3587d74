"""Times one step of SGD of every model in models.py beside its peers, interleaved, on one pinned core.

    python benchmarks/steps.py [MODEL ...] [--json FILE] [--repeats N] [--cpu N] [--ort-python PYTHON]

Figures are medians; the ratio is peer / EdgeFL. GFLOP/s count what must be computed (forward, both gradients, no dx of
the first layer) and stand beside NumPy's sgemm on the same core in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", XLA_FLAGS="--xla_cpu_multi_thread_eigen=false")

sys.path.insert(0, str(Path(__file__).parent / "lib"))

import peers
from models import MODELS, VOCABULARY, Spec

from edgefl import _core, load

BLOCK_S = 0.15  # a peer's turn lasts about so long


def gather(name: str, spec: Spec, ort_python: str | None, folder: Path) -> tuple[dict[str, peers.Peer], float]:
    """The peers that this machine has for a model, and the MFLOP of a step."""
    model, loss = spec.make(), "mse" if spec.classes is None else "cross_entropy"
    plan = load(model, loss=loss).plan
    shape = tuple(int(d) for d in _input_shape(model))
    x, y = spec.data(spec.batch * peers.DISTINCT, shape)
    found: dict[str, peers.Peer] = {"edgefl": peers.edgefl(model, x, y, spec.batch, loss)}
    if importlib.util.find_spec("torch"):
        found["torch"] = peers.torch(name, model, x, y, batch=spec.batch, loss=loss, vocabulary=VOCABULARY)
    if importlib.util.find_spec("jax") and name in ("logistic", "mlp"):
        found["jax"] = peers.jax_dense(_weights(model), x, y, spec.batch)
    if ort_python and spec.classes is not None:
        ort = peers.OnnxRuntimeTraining(ort_python, model, x, y, batch=spec.batch, folder=folder)
        if ort.ready:
            found["ort-training"] = ort
    return found, step_mflop(plan, spec.batch)


def _input_shape(model: bytes) -> list[int]:
    import onnx

    graph = onnx.ModelProto.FromString(model).graph
    return [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim][1:]


def _weights(model: bytes) -> list:
    import onnx
    from onnx import numpy_helper

    return [numpy_helper.to_array(i) for i in onnx.ModelProto.FromString(model).graph.initializer]


def step_mflop(plan: object, batch: int) -> float:
    """Forward, dW and dx; the first node with params has no dx to give."""
    net = _core.Net(plan, 1)
    first = next(i for i, node in enumerate(plan.nodes) if node.params)  # type: ignore[attr-defined]
    return batch * (3 * sum(net.flops) - net.flops[first]) / 1e6


def time_model(found: dict[str, peers.Peer], repeats: int) -> dict[str, float]:
    """Median microseconds a step of each peer, their turns interleaved."""
    counts = {}
    for name, steps in found.items():
        steps(2)
        counts[name] = max(2, int(BLOCK_S / (steps(5) / 5)))
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repeats):
        for name, steps in found.items():
            times[name].append(steps(counts[name]) / counts[name])
    return {name: statistics.median(values) * 1e6 for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--ort-python", metavar="PYTHON", help="an interpreter that has onnxruntime-training")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.cpu})
    rows = []
    print(f"isa {_core.isa()}, one core; us a step, and peer / edgefl")
    for name in options.models or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            found, mflop = gather(name, MODELS[name], options.ort_python, Path(folder))
            peak = peers.sgemm_gflops()
            times = time_model(found, options.repeats)
            peak = max(peak, peers.sgemm_gflops())
            for peer in found.values():
                if isinstance(peer, peers.OnnxRuntimeTraining):
                    peer.close()
        own = times["edgefl"]
        rate = mflop / own * 1e3
        row = {"model": name, "batch": MODELS[name].batch, "mflop": mflop, "us": times, "gflops": rate, "sgemm": peak}
        rows.append(row)
        others = "  ".join(f"{p} {t:,.0f} ({t / own:.1f}x)" for p, t in times.items() if p != "edgefl")
        speed = f"{rate:6.1f} GFLOP/s = {rate / peak:4.0%} of sgemm"
        print(f"{name:12} b{row['batch']:<3} {own:>10,.1f} us  {speed}  {others}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
