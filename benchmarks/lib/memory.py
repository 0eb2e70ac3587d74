"""What training takes of memory: the most that was resident, beyond what was with model and data in memory.

EdgeFL has its plan, params and data then, as on a device; torch has its net and data. A process for each figure, on
Linux only, since /proc tells.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

STEPS = 3


def trained_bytes(peer: str, model: str) -> int:
    """Measured in a process of its own, which trains `STEPS` steps."""
    with tempfile.TemporaryDirectory() as folder:
        if peer == "edgefl":
            _leave(model, Path(folder))
        command = [sys.executable, __file__, peer, model, folder]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(ran.stdout.split()[-1])


def _leave(name: str, folder: Path) -> None:
    """What a device has: no ONNX file."""
    import subjects

    from edgefl import load

    subject = subjects.find(name)
    model, (x, y) = load(subject.file, loss=subject.loss), subject.data(STEPS)
    (folder / "plan.json").write_bytes(model.plan.to_bytes())
    np.savez(folder / "data.npz", params=model.params, x=x, y=y, batch=subject.batch)


def _resident(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def _main(peer: str, name: str, folder: str) -> None:
    if peer == "torch":
        import peers
        import subjects

        subject = subjects.find(name)
        (x, y), net = subject.data(STEPS), subject.twin()
        before = _base()
        peers.torch(net, x, y, batch=subject.batch, loss=subject.loss)(STEPS)
    else:
        from edgefl import Trainer
        from edgefl.core.plan import Plan

        plan = Plan.from_bytes(Path(folder, "plan.json").read_bytes())
        with np.load(Path(folder, "data.npz")) as kept:
            params, x, y, batch = (kept[key] for key in ("params", "x", "y", "batch"))
        before = _base()
        Trainer(plan, batch=int(batch)).fit(params, x, y, batch_size=int(batch), max_steps=STEPS)
    print(max(0, _resident("VmHWM") - before))


def _base() -> int:
    """Resident now; the kernel's high-water mark begins anew here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


if __name__ == "__main__":
    _main(*sys.argv[1:])
