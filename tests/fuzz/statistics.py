"""Column statistics of a profile round: what is accepted is written again as it came, and data could have made it."""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np

from edgefl.core.plan import Node, Param, Plan
from edgefl.device.columns.statistics import of_examples
from edgefl.errors import EdgeFLError
from edgefl.protocol import statistics

LONGEST = 8192
COLUMNS, EXAMPLES = 3, 50
PLAN = Plan(
    input_shape=[COLUMNS], nodes=[Node("dense", [0], [0])], params=[Param("w", [COLUMNS, 4])], loss="cross_entropy",
    loss_input=1, output=1,
)  # fmt: skip


def seeds() -> list[bytes]:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(EXAMPLES, COLUMNS)) * [1e-20, 1, 1e30]).astype(np.float32)
    x[::7, 1] = np.nan
    return [
        statistics.pack(of_examples(PLAN, data, rng.integers(0, 4, len(data))))
        for data in (x, x[:1], np.full_like(x, np.inf), np.zeros_like(x))
    ]


def run(data: bytes) -> None:
    with suppress(EdgeFLError):
        statistics.decode(data, columns=COLUMNS, most_values=EXAMPLES, most_labels=EXAMPLES)
    told = statistics.unpack(data, columns=COLUMNS, most_values=EXAMPLES, most_labels=EXAMPLES)
    assert statistics.pack(told) == data
    payload = statistics.encode(told)
    assert len(payload) <= statistics.bound(COLUMNS)
    again = statistics.decode(payload, columns=COLUMNS, most_values=EXAMPLES, most_labels=EXAMPLES)
    assert statistics.pack(again) == data
    assert told.labels.counts.sum() <= EXAMPLES
    for column in told.columns:
        assert column.bins.counts.sum() == column.values <= EXAMPLES
        if column.values:
            assert abs(column.mean) <= statistics.LARGEST and 0 <= column.variance < math.inf
