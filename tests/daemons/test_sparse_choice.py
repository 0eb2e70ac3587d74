"""[sparse]: the aggregator chooses once what trains, keeps that, and devices train it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from daemons import Federation, blobs
from edgefl_broker import check
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.choice import Look
from edgefl_broker.progress import Silent
from onnx import numpy_helper
from onnx_files import onnx_model

import edgefl
from edgefl import arena_budget
from edgefl.errors import StoreError, UsageError
from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import Settings, files
from edgefl.transports.embedded import EmbeddedBroker

NOWHERE = "mqtt://127.0.0.1:1"
BATCH = Settings().train.batch_size
WEIGHTS = {"lift": (4, 256), "w0": (32, 4, 1, 1), "w1": (32, 32, 1, 1), "w2": (32, 32, 1, 1), "head": (32, 3)}


def net() -> bytes:
    """Four numbers become an image, for convolutions whose activations are larger than their weights."""
    rng = np.random.default_rng(1)
    arrays = {
        name: rng.normal(0, 1.4 / shape[-2 if len(shape) == 2 else 1] ** 0.5, shape) for name, shape in WEIGHTS.items()
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    kinds = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in WEIGHTS.items())
    text = f"""(float[n,4] x) => (float[n,3] y) <{kinds}, float[32] b0, float[32] b1, float[32] b2, float[3] b,
        int64[4] image = {{-1, 4, 8, 8}}> {{
            a = MatMul(x, lift)
            i = Reshape(a, image)
            c0 = Conv(i, w0, b0)
            r0 = Relu(c0)
            c1 = Conv(r0, w1, b1)
            r1 = Relu(c1)
            c2 = Conv(r1, w2, b2)
            r2 = Relu(c2)
            p = GlobalAveragePool(r2)
            f = Flatten(p)
            y = Gemm(f, head, b) }}"""
    return onnx_model(text, **arrays).SerializeToString()


def budget_mb(share: float) -> float:
    """Between what the last layer needs and what all of the model needs."""
    model = edgefl.load(net(), loss="cross_entropy")
    last = [param.name for param in model.plan.params][-2:]
    least, most = (
        edgefl.Trainer(plan, batch=BATCH).arena_bytes for plan in (model.compile(model.source, last).plan, model.plan)
    )
    return (least + share * (most - least)) / 1e6


def write(folder: Path, url: str = NOWHERE) -> Federation:
    federation = Federation(folder, url, "sparse")
    (folder / "start.onnx").write_bytes(net())
    x, y = blobs(80, seed=5)
    np.savez(folder / "public.npz", x=x, y=y)
    return federation


def tables(folder: Path, share: float = 0.5) -> dict[str, Any]:
    return {"sparse": {"arena_mb": budget_mb(share), "public_data": f"npz:{folder / 'public.npz'}"}}


def start(federation: Federation, **more: Any) -> Aggregator:
    """An aggregator that never connects."""
    config = files.load(federation.write_aggregator(**more), AggregatorConfig)
    return Aggregator(config, Silent())


def test_the_choice_is_in_the_plan_and_survives_a_restart(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    federation = write(tmp_path)
    first = start(federation, **tables(tmp_path))
    first._store.close()
    plan = first._model.plan
    assert any(node.op == "conv_part" for node in plan.nodes)
    assert edgefl.Trainer(plan, batch=BATCH).arena_bytes <= budget_mb(0.5) * 1e6
    assert f"sparse: {plan.num_trainable} params train in " in caplog.text

    def another(*_: object) -> None:
        raise AssertionError("chosen again")

    monkeypatch.setattr(arena_budget, "choice_for", another)
    (tmp_path / "public.npz").unlink()
    again = start(federation, **tables(tmp_path))
    again._store.close()
    assert again._model.plan.hash == plan.hash


def test_another_budget_is_refused_and_so_is_none(tmp_path):
    federation = write(tmp_path)
    start(federation, **tables(tmp_path))._store.close()
    with pytest.raises(UsageError, match=r"this federation has begun with .*: set that again"):
        start(federation, **tables(tmp_path, share=0.9))
    with pytest.raises(StoreError, match="belongs to another model"):
        start(federation)


def test_a_start_that_fails_keeps_no_choice(tmp_path):
    """A folder of another plan is left as it was."""
    federation = write(tmp_path)
    start(federation)._store.close()
    for _ in range(2):
        with pytest.raises(StoreError, match="belongs to another model"):
            start(federation, **tables(tmp_path))
    start(federation)._store.close()


def test_a_damaged_choice_is_told(tmp_path):
    federation = write(tmp_path)
    first = start(federation, **tables(tmp_path))
    first._store._values.put("sparse", '{"arena_mb": 1}')
    first._store.close()
    with pytest.raises(StoreError, match=r"the choice for \[sparse\] .* is damaged"):
        start(federation, **tables(tmp_path))


def test_a_check_chooses_too(tmp_path):
    config = files.load(write(tmp_path).write_aggregator(**tables(tmp_path)), AggregatorConfig)
    assert any(node.op == "conv_part" for node in check.Federation(config).make_manifest().plan.nodes)


def test_a_check_reads_what_a_start_has_chosen(tmp_path, monkeypatch):
    """Beside an aggregator that runs, and when the public examples are gone."""
    federation = write(tmp_path)
    running = start(federation, **tables(tmp_path))
    config = files.load(federation.write_aggregator(**tables(tmp_path)), AggregatorConfig)
    monkeypatch.setattr(arena_budget, "choice_for", lambda *_: pytest.fail("chosen again"))
    (tmp_path / "public.npz").unlink()
    manifest = check.Federation(config).make_manifest()
    assert manifest.plan.hash == running._model.plan.hash
    auto_kept = running._store.keep("auto", "of the first start")
    assert Look(Path(config.state_dir)).keep("auto", "another") == auto_kept
    running._store.close()
    assert check.Federation(config).make_manifest().plan.hash == running._model.plan.hash
    other = files.load(federation.write_aggregator(**tables(tmp_path, share=0.9)), AggregatorConfig)
    with pytest.raises(UsageError, match="set that again"):
        check.Federation(other).make_manifest()


def test_a_check_finds_a_damaged_choice(tmp_path):
    federation = write(tmp_path)
    first = start(federation, **tables(tmp_path))
    first._store._db.execute("UPDATE meta SET value = 'x~0' WHERE key = 'sparse'")
    first._store.close()
    config = files.load(federation.write_aggregator(**tables(tmp_path)), AggregatorConfig)
    with pytest.raises(StoreError, match=r"damaged \(sparse\)"):
        check.Federation(config).make_manifest()


def test_devices_train_what_was_chosen_and_nothing_else(tmp_path):
    with EmbeddedBroker() as broker:
        federation = write(tmp_path, broker.url)
        try:
            for name in ("dev-a", "dev-b"):
                federation.agent(name)
            aggregator = federation.aggregator(**tables(tmp_path))
            assert aggregator.join(60.0) and aggregator.error is None
            model = aggregator.host._model
        finally:
            federation.close()
    assert aggregator.host.history.rounds[-1].accuracy > 0.8
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
        for path in (tmp_path / "start.onnx", tmp_path / "aggregator" / "model.onnx")
    )
    moved = {name: (after[name] != before[name]) for name in before}
    trained = {param.name: param.size for param in model.plan.params if param.trainable}
    assert {name for name, where in moved.items() if where.any()} == set(trained)
    assert all(moved[name].sum() <= size for name, size in trained.items())
    assert any(size < before[name].size for name, size in trained.items())


def test_a_simulation_chooses_too(tmp_path):
    write(tmp_path)
    x, y = blobs(80, seed=5)
    settings = Settings().replace(
        **{
            "sparse.arena_mb": budget_mb(0.5),
            "sparse.public_data": f"npz:{tmp_path / 'public.npz'}",
            "rounds.rounds": 1,
        }
    )
    model = edgefl.load(tmp_path / "start.onnx", loss="cross_entropy")
    history = edgefl.simulate(model, edgefl.data.Dataset(x, y), settings, devices=2)
    limited = arena_budget.within(model, settings)
    assert history.params.shape == limited.params.shape
    assert (history.params != limited.params)[limited.plan.num_trainable :].sum() == 0
    assert arena_budget.within(limited, settings) is limited and arena_budget.within(model, Settings()) is model
