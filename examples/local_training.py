"""Train an ONNX model on one machine, without any federation: the core that also runs on a device.

python examples/local_training.py
"""

import tempfile
from pathlib import Path

import onnx

import edgefl
from edgefl import data
from edgefl.onnx import zoo
from edgefl.onnx.evaluate import OnnxEvaluator


def main() -> None:
    digits = data.load("digits", seed=0)
    assert digits.x_test is not None and digits.y_test is not None
    with tempfile.TemporaryDirectory() as folder:
        start, trained = Path(folder) / "start.onnx", Path(folder) / "trained.onnx"
        onnx.save(zoo.mlp([64, 32, 10]), start)  # any model that torch or Keras exports would do

        model = edgefl.load(start)
        trainer = edgefl.Trainer(model.plan)
        print(f"{len(model.params)} parameters, {trainer.arena_bytes / 1000:.0f} kB of memory for the steps")

        result = trainer.fit(model.params, digits.x_train, digits.y_train, epochs=10, batch_size=10, lr=0.1)
        print(f"{result.steps} steps, loss of the last epoch {result.loss:.3f}")

        model.save(trained, model.params + result.delta)
        again = edgefl.load(trained)
        accuracy = OnnxEvaluator(again).evaluate(again.params, digits.x_test, digits.y_test).accuracy
        print(f"onnxruntime on the saved file: accuracy {accuracy:.3f} on {len(digits.x_test)} digits")


if __name__ == "__main__":
    main()
