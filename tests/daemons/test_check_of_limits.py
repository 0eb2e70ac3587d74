"""`edgefl-agent --check` finds a model too large where the agent would refuse it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from edgefl_agent.check import federation

from edgefl import load
from edgefl.device.work import Terms
from edgefl.errors import ModelError
from edgefl.federation import make_manifest
from edgefl.onnx import zoo
from edgefl.settings import Settings

PLAN = load(zoo.mlp([6, 1], seed=0)).plan


@pytest.mark.parametrize(("strategy", "vectors"), [("fedavg", 1), ("mime-lite", 2)])
def test_side_vectors_are_a_part_of_the_model(strategy: str, vectors: int) -> None:
    settings = Settings().replace(strategy=strategy, codec="raw32", downlink="raw32", span=1)
    manifest, size = make_manifest(settings, "pond", "0" * 16, PLAN), 4 * PLAN.num_params * vectors
    for room in (size, size - 1):
        config = SimpleNamespace(limits=SimpleNamespace(model_bytes=lambda room=room: room))
        visit = SimpleNamespace(is_in=True)
        found = list(federation(SimpleNamespace(visit=visit, manifest=manifest, round="nothing is", config=config)))
        assert any("too many" in finding.text for finding in found) == (room < size)
    Terms(manifest, size)
    with pytest.raises(ModelError, match=f"its model takes {size} bytes"):
        Terms(manifest, size - 1)
