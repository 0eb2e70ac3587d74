"""What the settings [sparse] choose of a model: the params that fit into a device's memory (onnx/sparse.py).

On the aggregator's side and in a simulation alone; a device's plan says all. The choice depends on the model, the
budget, the batch and the public examples. Gradients are not the same on every processor, and two processors may choose
differently: so an aggregator keeps its choice in its state folder (edgefl_broker/choice.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import data
from .device.training import arena_batch
from .settings import Settings

if TYPE_CHECKING:
    from .onnx.model import Model
    from .onnx.sparse import Choice


def choice_for(model: Model, settings: Settings) -> Choice | None:
    """What to train of the model; None if the settings set no budget. UsageError, DataError."""
    sparse = settings.sparse
    if not sparse.arena_mb:
        return None
    from .onnx.sparse import choose

    x = y = None
    if sparse.public_data is not None:
        public = data.fit_plan(data.load(sparse.public_data, test_fraction=0), model.plan)
        model.check_targets(public.y_train)
        x, y = public.x_train, public.y_train
    return choose(model, int(sparse.arena_mb * 10**6), batch=arena_batch(settings.train.batch_size), x=x, y=y)


def within(model: Model, settings: Settings) -> Model:
    """The model that trains what the settings choose; itself if they set no budget, or if that is done already."""
    choice = None if model.arena_bytes is not None else choice_for(model, settings)
    if choice is None:
        return model
    from .onnx.sparse import applied

    return applied(model, choice)
