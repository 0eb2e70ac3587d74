"""The model of a new federation: from a template, or the user's own file, checked against the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..core.trainer import Diverged, Trainer
from ..data import fit_shape
from ..errors import UsageError
from ..onnx.evaluate import OnnxEvaluator
from ..onnx.load import load
from ..onnx.model import Model
from ..onnx.templates import TEMPLATES, fitting, template
from .sample import Sample
from .wanted import AUTO, Wanted

ADAM = {"optimizer": "adam", "lr": 0.003}
TRAIN: dict[str, dict[str, Any]] = {"cnn1d": ADAM, "gru": ADAM, "autoencoder": ADAM}
OF_NUMBERS = {"lr": 0.03, "clip_norm": 1.0}  # a squared error has no largest gradient
TRIED = 256  # examples


class Choice(NamedTuple):
    """`template`: its name, "" for the user's own file. `train`: settings that suit it."""

    model: Model
    template: str
    train: dict[str, Any]


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


def try_out(model: Model, sample: Sample, train: dict[str, Any], *, scaled: bool) -> None:
    """One epoch of the core on some examples, and one run of onnxruntime. UsageError, DataError, ModelError if they
    don't go together. `scaled`: the columns are not scaled yet, but will be in the first round."""
    dataset = fit_shape(sample.dataset, model.plan.input_shape)
    x, y = dataset.x_train[:TRIED], dataset.y_train[:TRIED]
    model.check_targets(y)
    trainer = Trainer(model.plan)
    trainer.evaluate(model.params, x, y)
    OnnxEvaluator(model).predict(model.params, x)
    try:
        trainer.fit(model.params, x, y, **train)
    except Diverged as error:
        if not scaled:
            raise UsageError(
                f"{error}: columns of very unlike size need scaling: give mean= and std= in the SPEC, the same on all "
                "devices"
            ) from None
