"""The papers' models and data, as Runs asks for them: MNIST and Shakespeare are read from a folder of the user's."""

from __future__ import annotations

import sys
from functools import cache, partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import models

import edgefl
from edgefl import data
from edgefl.data import Dataset
from edgefl.onnx.papers import mcmahan


def paper(name: str, seed: int) -> bytes:
    """A model of McMahan et al., whose weights are drawn with `seed`."""
    return bytes(mcmahan(name, seed).SerializeToString())


# Model -> its maker, and the data that it learns from: a SPEC in which {folder} is the user's folder.
MODELS = {
    "2nn": (partial(paper, "2nn"), "mnist:{folder}/mnist?shape=784"),
    "2nn writers": (partial(paper, "2nn"), "mnist:{folder}/mnist?shape=784&natural=writers"),
    "cnn": (partial(paper, "cnn"), "mnist:{folder}/mnist?shape=1x28x28"),
    "logistic": (models.mnist_logistic, "mnist:{folder}/mnist?shape=784"),
    "autoencoder": (models.mnist_autoencoder, "mnist:{folder}/mnist?shape=784&natural=writers"),
    # The character after each of 80; a test on all windows would cost more than the training does.
    "lstm": (partial(paper, "char-lstm"), "shakespeare:{folder}/shakespeare/roles.jsonl.gz?test_windows=1000"),
}


class Inputs:
    """`folder` holds mnist/ and shakespeare/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, model: str, seed: int) -> tuple[edgefl.Model, Dataset]:
        """A model, whose weights are drawn with `seed`, and its data."""
        make, spec = MODELS[model]
        dataset = _read(spec.format(folder=self.folder))
        if model == "autoencoder":
            dataset = _to_itself(dataset)
        return edgefl.load(make(seed)), dataset


@cache
def _read(spec: str) -> Dataset:
    return data.load(spec)


def _to_itself(dataset: Dataset) -> Dataset:
    """The same examples, which are their own targets."""
    from dataclasses import replace

    return replace(dataset, y_train=dataset.x_train, y_test=dataset.x_test)
