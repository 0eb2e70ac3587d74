"""Evaluates the saved ONNX file itself with onnxruntime, as the users of the file will run it.

Not here: evaluation on a device, which has no onnxruntime (trainer.py).
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from ..core.trainer import Evaluation
from ..errors import DataError, ModelError
from .graph import live_order
from .model import Model

CHUNK = 1024  # samples a run: bounds memory
# The smallest probability that float32 may have rounded to 0.
TINY = np.finfo(np.float32).tiny
BELOW_ONE = 2.0**-25


class OnnxEvaluator:
    """Runs `model` on one CPU thread. A fixed number of samples is made symbolic if the graph allows it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._batch: int | None = None  # samples in a run, if only the file's own number works
        probe = np.zeros((2, *model.plan.input_shape), model.input_dtype)
        try:
            self.predict(model.params, probe)
        except ModelError:
            if model.batch is None:
                raise
            self._batch = model.batch
            self.predict(model.params, probe)

    def predict(self, params: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The file's output for x (n, *input_shape), with `params` (P,) in it: (n, *output_shape) float32.

        If the file has two columns for one trained probability, this is the second. Raises ModelError, DataError.
        """
        shape = tuple(self.model.plan.input_shape)
        if x.shape[1:] != shape or not len(x):
            raise DataError(f"x has shape {x.shape}, the model takes (n, {', '.join(map(str, shape))}): check the data")
        size = self._batch or CHUNK
        chunks = [x[at : at + size] for at in range(0, len(x), size)]
        try:
            session = self._session(params)
            parts = [self._run(session, np.asarray(chunk, self.model.input_dtype)) for chunk in chunks]
        except Exception as error:  # onnxruntime's errors share no base but this one
            raise ModelError(f"onnxruntime can't run the model: {error}; update onnxruntime or export again") from None
        return np.concatenate(parts)

    def evaluate(self, params: np.ndarray, x: np.ndarray, y: np.ndarray) -> Evaluation:
        """Mean loss and accuracy (None if targets are numbers) of the file's output; y as for `Trainer.evaluate`."""
        if len(x) != len(y):
            raise DataError(f"{len(x)} samples but {len(y)} targets: give one target a sample")
        output = self.predict(params, x).astype(np.float64)
        name, tail = self.model.plan.loss, self.model.tail
        if name in OF_CLASSES:
            loss: float
            accuracy: float | None
            loss, accuracy = _of_classes(name, np.moveaxis(output, self.model.class_axis, -1), np.asarray(y), tail)
        elif name == "bce":
            loss, accuracy = _bce(output, _targets(np.asarray(y), output), tail)
        else:
            loss, accuracy = _distance(name, output - _targets(np.asarray(y), output)), None
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
        needed = [proto.graph.node[index] for index in live_order(proto.graph)]  # without the nodes that make labels
        del proto.graph.node[:]
        proto.graph.node.extend(needed)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors come as exceptions
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])

    def _run(self, session: onnxruntime.InferenceSession, chunk: np.ndarray) -> np.ndarray:
        """One run. If the file fixes the number of samples, a short chunk is padded to it."""
        filled = np.resize(chunk, (self._batch or len(chunk), *chunk.shape[1:]))
        output: np.ndarray = session.run(None, {self.model.input_name: filled})[0][: len(chunk)]
        if len(output) != len(chunk):
            raise ValueError(f"{len(chunk)} samples in, {len(output)} out")
        if output.shape[1:] == (2,) and self.model.output_shape == (1,):
            return output[:, 1:]  # p of [1 - p, p], made from one trained logit
        return output.reshape(len(chunk), *self.model.output_shape)


def _of_classes(name: str, output: np.ndarray, y: np.ndarray, tail: str) -> tuple[float, float]:
    """output (..., C) of float64: logits, log-probabilities or probabilities; y (...) labels."""
    classes = output.shape[-1]
    if y.shape != output.shape[:-1]:
        raise DataError(f"labels have shape {y.shape}, the model's output {output.shape}: give one label a row")
    if y.min() < 0 or y.max() >= classes:
        raise DataError(
            f"labels run from {y.min()} to {y.max()}, the model has classes 0 to {classes - 1}: number them from 0"
        )
    # Adding one number to a whole row of logits changes no loss of classes.
    rows = output.reshape(-1, classes)
    logits = np.log(np.maximum(rows, TINY)) if tail == "softmax" else rows
    labels = y.ravel().astype(np.int64)
    own = logits[np.arange(len(labels)), labels]
    return float(OF_CLASSES[name](logits, own).mean()), float((rows.argmax(1) == labels).mean())


def _log_p(logits: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(R,) log-probabilities of the labels, whose logits are `own` (R,)."""
    top = logits.max(1)
    log_p: np.ndarray = own - top - np.log(np.exp(logits - top[:, None]).sum(1))
    return log_p


def _focal(logits: np.ndarray, own: np.ndarray) -> np.ndarray:
    log_p = _log_p(logits, own)
    loss: np.ndarray = -(np.expm1(log_p) ** 2) * log_p
    return loss


def _hinge(logits: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The label's own margin is 1 and does not count."""
    loss: np.ndarray = (np.maximum(0, 1 - own[:, None] + logits).sum(1) - 1) / logits.shape[1]
    return loss


def _targets(y: np.ndarray, output: np.ndarray) -> np.ndarray:
    if y.size != output.size:
        raise DataError(f"targets have shape {y.shape}, the model's output {output.shape}: give one target an output")
    return y.reshape(output.shape)


def _bce(output: np.ndarray, y: np.ndarray, tail: str) -> tuple[float, float]:
    """output (n, ...): probabilities after a sigmoid, logits without; y alike."""
    p = output if tail == "sigmoid" else 1 / (1 + np.exp(-np.clip(output, -80, 80)))
    loss = -(y * np.log(np.maximum(p, TINY)) + (1 - y) * np.log(np.maximum(1 - p, BELOW_ONE))).mean()
    return float(loss), float(((p > 0.5) == (y > 0.5)).mean())


def _distance(name: str, error: np.ndarray) -> float:
    size = np.abs(error)
    costs = {"mse": size**2, "l1": size, "huber": np.where(size < 1, size**2 / 2, size - 0.5)}
    return float(costs[name].mean())


# The definitions are those of src/ops/loss.c.
OF_CLASSES = {"cross_entropy": lambda logits, own: -_log_p(logits, own), "hinge": _hinge, "focal": _focal}
