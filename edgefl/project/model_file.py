"""The model of a new federation: from a template, or the user's own file, checked against the data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.trainer import Diverged, Trainer
from ..data import fit_plan
from ..errors import UsageError
from ..onnx.evaluate import OnnxEvaluator
from ..onnx.load import load
from ..onnx.model import Model
from ..onnx.names import with_names
from ..onnx.templates import TEMPLATES, fitting, template
from .sample import Sample
from .wanted import AUTO, Wanted

ADAM = {"optimizer": "adam", "lr": 0.003}
TRAIN: dict[str, dict[str, Any]] = {"cnn1d": ADAM, "gru": ADAM, "autoencoder": ADAM}
OF_NUMBERS = {"lr": 0.03, "clip_norm": 1.0}  # a squared error has no largest gradient
TRIED, EPOCHS = 256, 3  # examples, and how often each


class Choice(NamedTuple):
    """`template`: its name, "" for the user's own file. `train`: settings that suit it."""

    model: Model
    template: str
    train: dict[str, Any]


def named(model: Model, sample: Sample) -> bytes:
    """The model's file, whose metadata have the names of classes and columns, as every later version will have them."""
    return with_names(model.to_bytes(), labels=sample.labels, columns=sample.dataset.columns)


class Trial(NamedTuple):
    """The loss after some epochs on the columns as they are, and on scaled ones."""

    raw: float
    scaled: float


def choose(wanted: Wanted, sample: Sample) -> Choice:
    """The model, which has been tried on the sample; ModelError, UsageError, DataError."""
    name, y = wanted.model, sample.dataset.y_train
    if name == AUTO:
        name = fitting(sample.examples, sample.restores)
    if name in TEMPLATES:
        if name == "autoencoder" and not sample.restores:
            raise UsageError("an autoencoder learns to restore its input: write target=* into the data's SPEC")
        proto = template(name, sample.examples, wanted.seed)
        model = load(proto, wanted.loss, y=y)
        return Choice(model, name, TRAIN.get(name, OF_NUMBERS if model.plan.loss == "mse" else {}))
    if not name.endswith(".onnx") and not Path(name).exists():
        raise UsageError(f"model {name!r} is no file and no template: templates are {', '.join(TEMPLATES)}")
    return Choice(load(name, wanted.loss, y=y), "", {})


def try_out(model: Model, sample: Sample, train: dict[str, Any]) -> Trial:
    """A few epochs of the core on some examples, raw and scaled, and one run of onnxruntime.

    UsageError, DataError, ModelError if model and data don't go together.
    """
    dataset = fit_plan(sample.dataset, model.plan)
    x, y = dataset.x_train[:TRIED], dataset.y_train[:TRIED]
    model.check_targets(y)
    OnnxEvaluator(model).predict(model.params, x)
    columns = tuple(range(x.ndim - 1))  # all axes but the last
    std = x.std(axis=columns)
    as_it_is = model.plan.input_dtype == "int64" or model.plan.inputs
    scaled = x if as_it_is else (x - x.mean(axis=columns)) / np.where(std > 0, std, 1)
    return Trial(_loss_after(model, x, y, train), _loss_after(model, scaled, y, train))


def _loss_after(model: Model, x: np.ndarray, y: np.ndarray, train: dict[str, Any]) -> float:
    """The loss after training; infinity if it diverges."""
    trainer = Trainer(model.plan)
    try:
        delta = trainer.fit(model.params, x, y, **{**train, "epochs": EPOCHS}).delta
        loss = trainer.evaluate(model.params + delta, x, y).loss
    except Diverged:
        return math.inf
    return loss if math.isfinite(loss) else math.inf
