"""EIO, ENOSPC and SIGKILL at each system call by which aggregator and agent save: strace puts them there.

A sample runs with every test; EDGEFL_STRACE=all takes each call in turn: `make soak-strace`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from crash_server import MANIFEST, ROUNDS, TOLD, params_of, read_told, reports, update_of
from crashes import FAULTS, Crashes, at_every_call
from edgefl_agent.store import AgentStore
from edgefl_broker.store import AggregatorStore
from machines import P, fetching, make_round, of

import edgefl
from edgefl.device.events import StartTraining
from edgefl.history_files import read_records
from edgefl.onnx import zoo
from edgefl.settings.render import dump
from edgefl.strategies.pre.staleness import stale_weight


def prepare(folder: Path) -> None:
    (folder / "told").write_bytes(bytes(TOLD.size))
    (folder / "start.onnx").write_bytes(zoo.mlp([4, 8, 3], seed=1).SerializeToString())
    np.savez(folder / "data.npz", x=np.zeros((5, 99), np.float32), y=np.zeros(5, np.int64))
    common = {"federation": "tiny", "mqtt": {"url": "mqtt://127.0.0.1"}}
    aggregator = {
        "model": str(folder / "start.onnx"), "state_dir": str(folder / "state"), "loss": "cross_entropy",
        "rounds": {"interval_s": 0.0, "rounds": ROUNDS, "min_reports": 2, "goal": 2, "late": "fold"},
        "codec": {"name": "raw32"}, "downlink": {"name": "raw32"},
    }  # fmt: skip
    agent = {"device_id": "a", "state_dir": str(folder / "state"), "data": {"source": f"npz:{folder}/data.npz"}}
    (folder / "aggregator.toml").write_text(dump({**common, **aggregator}))
    (folder / "agent.toml").write_text(dump({**common, **agent}))


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashes]:
    crashes = Crashes(tmp_path_factory.mktemp("crashes"), prepare)
    yield crashes
    crashes.close()


def expected_models() -> list[np.ndarray]:
    """The model of each version: a round adds the mean of num_examples / round, of what is late with less weight."""
    params = [edgefl.load(zoo.mlp([4, 8, 3], seed=1), loss="cross_entropy").params]
    for number in range(1, ROUNDS + 1):
        total = examples = 0
        for _, n, own in reports(number):
            total += stale_weight(n, number - own) * round(float(np.float32(n / own)) * 2**30)
            examples += n
        params.append(params[-1] + np.float32(total / (examples * 2.0**30)))
    return params


def check_aggregator(folder: Path, code: int) -> int:
    """Durable is one whole round after the other, and all that was announced. Returns their number."""
    told_round, told_version, told_late = read_told(folder)
    store = AggregatorStore(folder / "state")
    models = expected_models()
    state = store.resume(edgefl.load(zoo.mlp([4, 8, 3], seed=1), loss="cross_entropy").plan.hash, models[0])
    records, late = store.records(), [(update.device, update.round) for update in store.late()]
    store.close()
    assert [r.round for r in records] == list(range(1, state.round)) and state.version == len(records)
    assert state.params.tobytes() == models[state.version].tobytes()
    assert told_version <= state.version and told_round <= state.round
    settled = [update for r in records for update in r.folded]
    assert len({*settled, *late}) == len(settled) + len(late), "I01: in a model, and saved to go into another"
    assert not told_late or ("c", told_late) in [*settled, *late], "I06: a late update has its receipt, and is lost"
    assert code != 0 or state.version == ROUNDS
    lines = read_records(folder / "state" / "history.jsonl")
    assert len(lines) <= len(records)
    return state.version


def check_agent(folder: Path, code: int) -> int:
    """The update that was reported is there until the next round; it is not trained again."""
    reported, heard, counted = read_told(folder)
    store = AgentStore(folder / "state")
    saved, residual = store.load(), store.load_slot("residual")
    store.close()
    assert saved is None or saved.blob == update_of(saved.round)[0]
    if reported == heard and reported > 0:
        assert saved is not None and saved.round == reported, "I06: reported, and not durable"
        number = saved.round
        message = make_round(number, number - 1, params=params_of(number), manifest=MANIFEST)
        assert not of(fetching(manifest=MANIFEST, round=message, outbox=saved)[1], StartTraining), "I11: trained twice"
    own = None if residual is None else residual.round
    assert own is None or residual.blob == update_of(own)[1]  # type: ignore[union-attr]
    assert own is None or saved is None or own < saved.round
    assert code != 0 or (saved is not None and saved.round == ROUNDS == counted)
    assert len(update_of(1)[1]) == 4 * P
    return heard


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("what", ["aggregator", "agent"])
def test_i08_i09_i11_at_every_system_call_of_saving(crashes: Crashes, what: str, fault: str) -> None:
    at_every_call(crashes, what, fault, {"aggregator": check_aggregator, "agent": check_agent}[what], ROUNDS)
