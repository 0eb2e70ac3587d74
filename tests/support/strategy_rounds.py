"""Updates, strategies as a host makes them, and one round, for tests of strategies."""

from __future__ import annotations

import numpy as np

from edgefl import codecs, strategies
from edgefl.settings import TrainSettings
from edgefl.strategies import Strategy, Update
from edgefl.strategies.local_steps import steps_of

RAW = codecs.get("raw32")


def update(delta, num_examples, codec=RAW, device="a"):
    payload = codec.encode(np.float32(delta))
    return Update(device, num_examples, codec, payload, steps=steps_of(TrainSettings(), num_examples), loss=0.7)


NEEDED = {"monna": {"trusted": "a"}}


def make(name, **options) -> Strategy:
    strategy = strategies.get(name, **NEEDED.get(name, {}), **options)
    strategy.defaults(TrainSettings())
    return strategy


def run(strategy, params, *updates):
    strategy.start(np.float32(params), 1)
    for each in updates:
        strategy.add(each)
    return strategy.finish()
