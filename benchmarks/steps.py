"""Times one step of SGD of every model in models.py beside its peers, interleaved, on one pinned core.

    python benchmarks/steps.py [MODEL ...] [--threads N] [--compile] [--memory] [--json FILE] [--repeats N] [--cpu N]
                               [--ort-python PYTHON]

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
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", XLA_FLAGS="--xla_cpu_multi_thread_eigen=false")

sys.path.insert(0, str(Path(__file__).parent / "lib"))

import memory
import peers
import subjects

from edgefl import _core, load

BLOCK_S = 0.15  # a peer's turn lasts about so long


def gather(subject: subjects.Subject, options: argparse.Namespace, folder: Path) -> tuple[dict[str, peers.Peer], float]:
    """The peers that this machine has for a model, and the MFLOP of a step."""
    model, (x, y), batch = load(subject.file, loss=subject.loss), subject.data(), subject.batch
    found: dict[str, peers.Peer] = {"edgefl": peers.edgefl(model, x, y, batch)}
    if options.threads > 1:
        found[f"{options.threads} threads"] = peers.edgefl(model, x, y, batch, options.threads)
    if subjects.HAS_TORCH:
        found["torch"] = peers.torch(subject.twin(), x, y, batch=batch, loss=subject.loss)
        if options.compile:
            found["torch.compile"] = peers.torch(subject.twin(), x, y, batch=batch, loss=subject.loss, compiled=True)
    if importlib.util.find_spec("jax") and subject.name in ("logistic", "mlp"):
        found["jax"] = peers.jax_dense(_weights(subject.file), x, y, batch)
    if options.ort_python and subject.spec.classes is not None:
        ort = peers.OnnxRuntimeTraining(options.ort_python, subject.file, x, y, batch=batch, folder=folder)
        if ort.ready:
            found["ort-training"] = ort
    return found, step_mflop(model.plan, batch)


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
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(subjects.names()))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="a row of EdgeFL with so many threads beside one's")
    parser.add_argument("--compile", action="store_true", help="torch.compile too; it takes a minute or more a model")
    parser.add_argument("--memory", action="store_true", help="what training takes of memory beside torch")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--ort-python", metavar="PYTHON", help="an interpreter that has onnxruntime-training")
    options = parser.parse_args()
    if options.threads == 1:
        os.sched_setaffinity(0, {options.cpu})
    rows = []
    print(f"isa {_core.isa()}; us a step, and peer / edgefl with one thread")
    for name in options.models or subjects.names():
        rows.append(row := measure(subjects.find(name), options))
        print(told(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def measure(subject: subjects.Subject, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        found, mflop = gather(subject, options, Path(folder))
        peak = peers.sgemm_gflops()
        times = time_model(found, options.repeats)
        peak = max(peak, peers.sgemm_gflops())
        for peer in found.values():
            if isinstance(peer, peers.OnnxRuntimeTraining):
                peer.close()
    rate = mflop / times["edgefl"] * 1e3
    row = {"model": subject.name, "batch": subject.batch, "mflop": mflop, "us": times, "gflops": rate, "sgemm": peak}
    if options.memory:
        sides = ("edgefl", "torch") if subjects.HAS_TORCH else ("edgefl",)
        row["bytes"] = {peer: memory.trained_bytes(peer, subject.name) for peer in sides}
    return row


def told(row: dict[str, Any]) -> str:
    own = row["us"]["edgefl"]
    others = "  ".join(f"{p} {t:,.0f} ({t / own:.2f}x)" for p, t in row["us"].items() if p != "edgefl")
    speed = f"{row['gflops']:6.1f} GFLOP/s = {row['gflops'] / row['sgemm']:4.0%} of sgemm"
    room = "  ".join(f"{peer} {size / 2**20:.0f} MB" for peer, size in row.get("bytes", {}).items())
    return f"{row['model']:12} b{row['batch']:<3} {own:>10,.1f} us  {speed}  {others}  {room}"


if __name__ == "__main__":
    sys.exit(main())
