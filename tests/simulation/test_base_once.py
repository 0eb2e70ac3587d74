"""What no training changes goes to each device of a fleet once, and the simulator counts its bytes."""

from __future__ import annotations

import numpy as np

import edgefl
from edgefl.onnx import zoo


def test_a_fleet_gets_it_once():
    """The frozen layer goes down in the first round alone, also when devices join later."""
    base = edgefl.load(zoo.from_spec("mlp:64-256-10", 0), freeze=["fc1"])
    options = {"devices": 8, "rounds": 6, "fraction": 0.5, "seed": 3, "codec": "raw32", "downlink": "raw32"}
    downs = {}
    for how in ("once", "always"):
        history = edgefl.simulate(base, "digits", frozen=how, **options)
        downs[how] = [record.bytes_down for record in history.rounds]
        assert np.array_equal(history.params[base.plan.num_trainable :], base.params[base.plan.num_trainable :])
    frozen_bytes, moved_bytes = 4 * (65 * 256), 4 * base.plan.num_trainable
    assert all(down >= 4 * (frozen_bytes + moved_bytes) for down in downs["always"])
    fetched = sum(downs["once"]) - 6 * 4 * moved_bytes  # beside the models
    assert 0.75 * 8 * frozen_bytes < fetched < 1.2 * 8 * frozen_bytes
    assert min(downs["once"]) < 4 * 1.2 * moved_bytes
