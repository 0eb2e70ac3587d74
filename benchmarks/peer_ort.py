"""The other end of peers.OnnxRuntimeTraining: reads a number of steps a line, answers with the seconds they took."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module, Optimizer


def main() -> None:
    folder, batch, lr = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    model = onnx.load(folder / "model.onnx")
    trained = [i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT]
    trained = [name for name in trained if "running_" not in name]
    artifacts.generate_artifacts(
        model, requires_grad=trained, loss=artifacts.LossType.CrossEntropyLoss, optimizer=artifacts.OptimType.SGD,
        artifact_directory=str(folder),
    )  # fmt: skip
    state = CheckpointState.load_checkpoint(str(folder / "checkpoint"))
    module = Module(str(folder / "training_model.onnx"), state, str(folder / "eval_model.onnx"))
    optimizer = Optimizer(str(folder / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(lr)
    data = np.load(folder / "data.npz")
    x, y = data["x"], data["y"]
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        count = int(line)
        started = time.perf_counter()
        for i in range(count):
            at = i % (len(x) // batch) * batch
            module.train()
            module(x[at : at + batch], y[at : at + batch])
            optimizer.step()
            module.lazy_reset_grad()
        print(json.dumps(time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
