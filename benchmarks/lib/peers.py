"""What is timed on a step of SGD: EdgeFL, torch eager and compiled, jax.jit + lax.scan, onnxruntime-training.
One thread each.

A peer is `steps(count) -> seconds` for so many steps on batches that lie ready in memory.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Peer = Callable[[int], float]
LR = 0.01


def edgefl(model: Any, x: np.ndarray, y: np.ndarray, batch: int, threads: int = 1) -> Peer:
    """`model` is a loaded one."""
    from edgefl import Trainer

    trainer = Trainer(model.plan, batch=batch, threads=threads)

    def steps(count: int) -> float:
        epochs = -(-count * batch // len(x))
        started = time.perf_counter()
        done = trainer.fit(model.params, x, y, epochs=epochs, batch_size=batch, lr=LR, max_steps=count)
        assert done.steps == count
        return time.perf_counter() - started

    return steps


def torch(net: Any, x: np.ndarray, y: np.ndarray, *, batch: int, loss: str, compiled: bool = False) -> Peer:
    """Eager, or forward and backward by torch.compile."""
    import torch as t

    t.set_num_threads(1)
    optimizer = t.optim.SGD(net.parameters(), lr=LR)
    criterion = t.nn.CrossEntropyLoss() if loss == "cross_entropy" else t.nn.MSELoss()
    inputs, targets = t.from_numpy(x), t.from_numpy(y)
    run = t.compile(net) if compiled else net

    def steps(count: int) -> float:
        started = time.perf_counter()
        for i in range(count):
            at = i % (len(x) // batch) * batch
            optimizer.zero_grad()
            criterion(run(inputs[at : at + batch]), targets[at : at + batch]).backward()
            optimizer.step()
        return time.perf_counter() - started

    return steps


def jax_dense(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray, batch: int) -> Peer:
    """Dense nets with ReLU and cross-entropy; `weights` are W (O, I) and b (O,) by turns. Compiled for `SCAN` steps."""
    import jax
    import jax.numpy as jnp

    def loss(params: list, x: jax.Array, y: jax.Array) -> jax.Array:
        for i in range(0, len(params), 2):
            x = x @ params[i].T + params[i + 1]
            x = x if i == len(params) - 2 else jax.nn.relu(x)
        return -jax.nn.log_softmax(x)[jnp.arange(len(y)), y].mean()

    def step(params: list, batch: tuple) -> tuple:
        gradient = jax.grad(loss)(params, *batch)
        return [p - LR * g for p, g in zip(params, gradient, strict=True)], 0.0

    run = jax.jit(lambda params, batches: jax.lax.scan(step, params, batches)[0])
    whole = len(x) // batch
    batches = (
        jnp.array(x[: whole * batch]).reshape(whole, batch, -1),
        jnp.array(y[: whole * batch]).reshape(whole, batch),
    )
    params = [jnp.array(w) for w in weights]
    jax.block_until_ready(run(params, batches))

    def steps(count: int) -> float:
        started = time.perf_counter()
        for _ in range(-(-count // whole)):
            jax.block_until_ready(run(params, batches))
        return (time.perf_counter() - started) * count / (-(-count // whole) * whole)

    return steps


class OnnxRuntimeTraining:
    """onnxruntime-training in an interpreter of its own: it wants numpy < 2. See peer_ort.py for the other end."""

    def __init__(self, python: str, model: bytes, x: np.ndarray, y: np.ndarray, *, batch: int, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(model)
        np.savez(folder / "data.npz", x=x, y=y)
        script = Path(__file__).with_name("peer_ort.py")
        self._process = subprocess.Popen(
            [python, str(script), str(folder), str(batch), str(LR)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.ready = self._answer() == "ready"

    def _answer(self) -> object:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def __call__(self, count: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        answer = self._answer()
        return float(answer) if isinstance(answer, float) else float("nan")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def sgemm_gflops(n: int = 1024, repeats: int = 3) -> float:
    """NumPy's best rate of (n, n) products, in GFLOP/s."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (2, n, n)).astype(np.float32)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * n**3 / min(seconds) / 1e9
