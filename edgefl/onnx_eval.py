"""Evaluates the saved ONNX file itself with onnxruntime: what the users of the file will get from it.

Not here: evaluation on a device, which has no onnxruntime (trainer.py).
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from .errors import DataError, ModelError
from .model import Model
from .trainer import Evaluation

CHUNK = 1024  # samples a run: bounds memory
# What a float32 probability that was rounded to 0, or to 1, may have been.
TINY = np.finfo(np.float32).tiny
BELOW_ONE = 2.0**-25


class OnnxEvaluator:
    """Runs `model` on one CPU thread; a samples axis fixed by the file is made symbolic where its graph allows."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._batch: int | None = None  # samples a run, where only the file's own number works
        probe = np.zeros((2, *model.plan.input_shape), np.float32)
        try:
            self.predict(model.params, probe)
        except ModelError:
            if model.batch is None:
                raise
            self._batch = model.batch
            self.predict(model.params, probe)

    def predict(self, params: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The file's output for x (n, *input_shape), with `params` (P,) in it: (n, *output_shape) float32.

        Where the file gives two columns for one trained probability, the second. Raises ModelError, DataError.
        """
        shape = tuple(self.model.plan.input_shape)
        if x.shape[1:] != shape or not len(x):
            raise DataError(f"x has shape {x.shape}, the model takes (n, {', '.join(map(str, shape))}): check the data")
        size = self._batch or CHUNK
        chunks = [x[at : at + size] for at in range(0, len(x), size)]
        try:
            session = self._session(params)
            parts = [self._run(session, np.asarray(chunk, np.float32)) for chunk in chunks]
        except Exception as error:  # onnxruntime's errors share no base but this one
            raise ModelError(f"onnxruntime can't run the model: {error}; update onnxruntime or export again") from None
        return np.concatenate(parts)

    def evaluate(self, params: np.ndarray, x: np.ndarray, y: np.ndarray) -> Evaluation:
        """Mean loss and accuracy (None for mse) of the file's own output; y as `Trainer.evaluate` takes it."""
        if len(x) != len(y):
            raise DataError(f"{len(x)} samples but {len(y)} targets: give one target a sample")
        output = self.predict(params, x).astype(np.float64)
        plan = self.model.plan
        tail = plan.nodes[-1].op if plan.output != plan.loss_input else "none"
        loss, accuracy = LOSSES[plan.loss](output, np.asarray(y), tail)
        return Evaluation(loss=float(loss), accuracy=accuracy, num_examples=len(x))

    def _session(self, params: np.ndarray) -> onnxruntime.InferenceSession:
        proto = onnx.ModelProto.FromString(self.model.to_bytes(params))
        if self._batch is None:
            for info in proto.graph.input:
                if info.name == self.model.input_name:
                    info.type.tensor_type.shape.dim[0].dim_param = "samples"
        del proto.graph.value_info[:], proto.graph.output[:]
        output = helper.make_tensor_value_info(self.model.output_tensor, onnx.TensorProto.FLOAT, None)
        proto.graph.output.append(output)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters comes as an exception
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])

    def _run(self, session: onnxruntime.InferenceSession, chunk: np.ndarray) -> np.ndarray:
        """One run; a short chunk is filled up where the file fixes the number of samples."""
        filled = np.resize(chunk, (self._batch or len(chunk), *chunk.shape[1:]))
        output = session.run(None, {self.model.input_name: filled})[0][: len(chunk)]
        if len(output) != len(chunk):
            raise ValueError(f"{len(chunk)} samples in, {len(output)} out")
        if output.shape[1:] == (2,) and self.model.output_shape == (1,):
            return output[:, 1:]  # of [1 - p, p], which one logit was trained for
        return output.reshape(len(chunk), *self.model.output_shape)


def _cross_entropy(output: np.ndarray, y: np.ndarray, tail: str) -> tuple[float, float]:
    """output (n, C) of float64: logits, log-probabilities or probabilities; y (n,) labels."""
    if y.min() < 0 or y.max() >= output.shape[1]:
        raise DataError(
            f"labels run from {y.min()} to {y.max()}, the model has classes 0 to {output.shape[1] - 1}: "
            "number the classes from 0"
        )
    rows, labels = np.arange(len(y)), y.astype(np.int64)
    accuracy = float((output.argmax(1) == labels).mean())
    if tail == "softmax":
        return -np.log(np.maximum(output[rows, labels], TINY)).mean(), accuracy
    top = output.max(1)
    normalizer = top + np.log(np.exp(output - top[:, None]).sum(1))  # 0 for log-probabilities
    return (normalizer - output[rows, labels]).mean(), accuracy


def _targets(y: np.ndarray, output: np.ndarray) -> np.ndarray:
    if y.size != output.size:
        raise DataError(f"targets have shape {y.shape}, the model's output {output.shape}: give one target an output")
    return y.reshape(output.shape)


def _bce(output: np.ndarray, y: np.ndarray, tail: str) -> tuple[float, float]:
    """output (n, ...): probabilities after a sigmoid, logits without; y of as many targets."""
    y = _targets(y, output)
    p = output if tail == "sigmoid" else 1 / (1 + np.exp(-np.clip(output, -80, 80)))
    loss = -(y * np.log(np.maximum(p, TINY)) + (1 - y) * np.log(np.maximum(1 - p, BELOW_ONE))).mean()
    return loss, float(((p > 0.5) == (y > 0.5)).mean())


def _mse(output: np.ndarray, y: np.ndarray, tail: str) -> tuple[float, None]:
    return ((output - _targets(y, output)) ** 2).mean(), None


def _l1(output: np.ndarray, y: np.ndarray, tail: str) -> tuple[float, None]:
    return np.abs(output - _targets(y, output)).mean(), None


def _huber(output: np.ndarray, y: np.ndarray, tail: str) -> tuple[float, None]:
    size = np.abs(output - _targets(y, output))
    return np.where(size < 1, size**2 / 2, size - 0.5).mean(), None


def _hinge(output: np.ndarray, y: np.ndarray, tail: str) -> tuple[float, float]:
    """Margins are differences of logits, and log-probabilities differ as logits do."""
    _, accuracy = _cross_entropy(output, y, tail)
    logits = np.log(np.maximum(output, TINY)) if tail == "softmax" else output
    rows, labels = np.arange(len(y)), y.astype(np.int64)
    margins = np.maximum(1 - logits[rows, labels][:, None] + logits, 0)
    margins[rows, labels] = 0
    return margins.mean(), accuracy


def _focal(output: np.ndarray, y: np.ndarray, tail: str) -> tuple[float, float]:
    """Each row's cross entropy is -log p: (1 - p)^2 of it, sample by sample."""
    each = np.array([_cross_entropy(output[i : i + 1], y[i : i + 1], tail)[0] for i in range(len(y))])
    return ((1 - np.exp(-each)) ** 2 * each).mean(), _cross_entropy(output, y, tail)[1]


LOSSES = {
    "cross_entropy": _cross_entropy,
    "bce": _bce,
    "mse": _mse,
    "l1": _l1,
    "huber": _huber,
    "hinge": _hinge,
    "focal": _focal,
}
