"""Evaluates the saved ONNX file itself with onnxruntime, as the users of the file will run it.

Not here: evaluation on a device, which has no onnxruntime (trainer.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from .. import _core
from ..core.packed import by_output, flat_x, flat_y
from ..core.trainer import Evaluation
from ..errors import DataError, ModelError
from .graph import live_order
from .losses import Ending
from .model import Model

CHUNK = 1024  # samples a run: bounds memory
# The smallest probability that float32 may have rounded to 0.
TINY = np.finfo(np.float32).tiny
BELOW_ONE = 2.0**-25


class OnnxEvaluator:
    """Runs `model` on one CPU thread. A fixed number of samples is made symbolic if the graph allows it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._batch = 1 if model.alone else None  # samples in a run, if only the file's own number works
        probe = np.zeros((2, *model.plan.input_shape), model.input_dtype)
        try:
            self.predict(model.params, probe)
        except ModelError:
            self._batch = model.batch or (1 if model.constants else None)
            if self._batch is None or model.alone:
                raise
            self.predict(model.params, probe)

    def predict(self, params: np.ndarray, x: Any) -> np.ndarray:
        """The file's output for x (n, *input_shape), with `params` (P,) in it: (n, *output_shape) float32.

        Several inputs are columns of x, or a dict of arrays by name; several outputs are columns of the result. If the
        file has two columns for one trained probability, this is the second. Raises ModelError, DataError.
        """
        x, shape = np.asarray(flat_x(self.model.plan, x)), tuple(self.model.plan.input_shape)
        if x.shape[1:] != shape or not len(x):
            raise DataError(f"x has shape {x.shape}, the model takes (n, {', '.join(map(str, shape))}): check the data")
        size = self._batch or CHUNK
        chunks = [x[at : at + size] for at in range(0, len(x), size)]
        try:
            session = self._session(params)
            parts = [self._run(session, chunk) for chunk in chunks]
        except Exception as error:  # onnxruntime's errors share no base but this one
            raise ModelError(f"onnxruntime can't run the model: {error}; update onnxruntime or export again") from None
        return np.concatenate(parts)

    def evaluate(self, params: np.ndarray, x: Any, y: Any) -> Evaluation:
        """Mean loss and accuracy (None if targets are numbers) of the file's output; y as for `Trainer.evaluate`. Of
        several losses their weighted sum, and the first accuracy."""
        model = self.model
        y = np.asarray(flat_y(model.plan, self._shapes, y))
        output = self.predict(params, x).astype(np.float64)
        if len(output) != len(y):
            raise DataError(f"{len(output)} samples but {len(y)} targets: give one target a sample")
        if len(model.heads) == 1:
            loss, accuracy = _scores(model.heads[0], output, y)
            return Evaluation(loss=float(loss), accuracy=accuracy, num_examples=len(output))
        return self._sum(by_output(model.plan, output), y)

    def _sum(self, outputs: dict[str, np.ndarray], y: np.ndarray) -> Evaluation:
        total, first, start = 0.0, None, 0
        for head, output in zip(self.model.heads, outputs.values(), strict=True):
            shape = np.delete(output.shape, head.class_axis) if head.loss in OF_CLASSES else np.array(output.shape)
            end = start + int(shape[1:].prod())
            loss, accuracy = _scores(head, output, y[:, start:end].reshape(shape))
            total, start = total + head.weight * loss, end
            first = accuracy if first is None else first
        return Evaluation(loss=total, accuracy=first, num_examples=len(y))

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        """Of the plan's values, a sample."""
        return _core.Net(self.model.plan, 1).shapes if self.model.plan.losses else []

    def _session(self, params: np.ndarray) -> onnxruntime.InferenceSession:
        proto = onnx.ModelProto.FromString(self.model.to_bytes(params))
        axes = {each.name: each.axis for each in self.model.inputs}
        axes |= {each.name: each.axis for each in self.model.constants}
        for info in proto.graph.input if self._batch is None else []:
            axis = axes.get(info.name)
            if axis is not None:
                info.type.tensor_type.shape.dim[axis].dim_param = "samples"
        del proto.graph.value_info[:], proto.graph.output[:]
        names = dict.fromkeys(head.tensor for head in self.model.heads)
        proto.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
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
        names = [head.tensor for head in self.model.heads]
        outputs = zip(self.model.heads, session.run(names, self._fed(filled)), strict=True)
        made = [_checked(head, output, len(filled))[: len(chunk)] for head, output in outputs]
        if len(made) > 1:
            return np.concatenate([output.reshape(len(chunk), -1) for output in made], axis=1)
        if made[0].shape[1:] == (2,) and self.model.output_shape == (1,):
            return made[0][:, 1:]  # p of [1 - p, p], made from one trained logit
        return made[0].reshape(len(chunk), *self.model.output_shape)

    def _fed(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Samples (n, *input_shape) as the file's inputs."""
        inputs = self.model.inputs
        fed, start = {constant.name: constant.fed(len(rows)) for constant in self.model.constants}, 0
        if len(inputs) == 1:
            return {**fed, inputs[0].name: inputs[0].stacked(np.asarray(rows, inputs[0].dtype))}
        for each in inputs:
            part = rows[:, start : start + each.size].astype(each.dtype)
            fed[each.name] = each.stacked(part.reshape(len(rows), *each.shape))
            start += each.size
        return fed


def _checked(head: Ending, output: np.ndarray, n: int) -> np.ndarray:
    """The output of n samples with these as its first axis; the file may have a sample's numbers one below another."""
    output = output[None] if head.axis is None else np.moveaxis(output, head.axis, 0)
    if len(output) != n and len(output) == n * head.shape[0]:
        output = output.reshape(n, *head.shape)
    if len(output) != n:
        raise ValueError(f"{n} samples in, {len(output)} out")
    return output


def _scores(head: Ending, output: np.ndarray, y: np.ndarray) -> tuple[float, float | None]:
    """Loss and accuracy of one output, of float64."""
    if head.loss in OF_CLASSES:
        return _of_classes(head.loss, np.moveaxis(output, head.class_axis, -1), y, head.tail)
    if head.loss == "bce":
        return _bce(output, _targets(y, output), head.tail)
    return _distance(head.loss, output - _targets(y, output)), None


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
