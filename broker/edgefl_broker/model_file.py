"""The model that aggregator.toml names, and the test set, whose targets say which loss the model needs."""

from __future__ import annotations

import numpy as np

from edgefl.data import Dataset, fit_plan, load_test_set
from edgefl.hosting.config import AggregatorConfig
from edgefl.onnx.load import load
from edgefl.onnx.model import Model
from edgefl.settings.reading import choices


def load_model(config: AggregatorConfig, y: np.ndarray | None = None) -> Model:
    """The model alone; targets `y` say what its loss is, where the settings do not. ModelError, UsageError."""
    return load(
        config.model, config.loss, **choices(config), dims=config.dims, y=y,
        standardize=config.features.is_federated, adapters=config.adapters,
    )  # fmt: skip


def load_both(config: AggregatorConfig) -> tuple[Model, Dataset | None]:
    """The model, and the test set in the shape of its input; None without one.

    Without a loss in the settings, the test set's targets decide where the file leaves it open. UsageError if they are
    not what the loss takes; ModelError, DataError.
    """
    spec = config.evaluate.test_data
    test = None if spec is None else load_test_set(spec)
    y = None if test is None else test.y_test
    model = load_model(config, y)
    if test is None or y is None:
        return model, None
    model.check_targets(y)
    model.check_classes(test.labels, test.target_labels)
    return model, fit_plan(test, model.plan)
