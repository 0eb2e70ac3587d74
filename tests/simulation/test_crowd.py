"""Devices that are made when they are asked, and sleep while they are not, leave the history as it is without that."""

import msgspec
import pytest

import edgefl
from edgefl.data import Dataset
from edgefl.simulation import stage as module
from edgefl.simulation.hosts.crowd import Crowd

FLEETS = {
    "list": {"devices": 30, "fraction": 0.2},
    "draw": {"devices": 30, "fraction": 0.2, "cohort": "draw"},
    "all": {"devices": 6},
    "raw32": {"devices": 30, "fraction": 0.2, "codec": "raw32", "downlink": "raw32"},
    "over-selection": {"devices": 20, "fraction": 0.4, "over_select": 1.5},
    "dropout": {"devices": 30, "fraction": 0.3, "faults": "dropout:0.3,straggler:0.2"},
    "late": {"devices": 30, "fraction": 0.3, "faults": "slow:0.3:100", "late": "fold"},
    "away": {"devices": 20, "fraction": 0.4, "faults": "away:0.4:6,link:0.3:64"},
    "async": {"devices": 20, "mode": "async", "goal": 5, "faults": "straggler:0.3"},
    "holdout": {"devices": 20, "fraction": 0.3, "holdout": 0.2},
    "only new data": {"devices": 20, "fraction": 0.3, "only_new_data": True},
}


def run(data: Dataset, **options: object) -> edgefl.History:
    return edgefl.simulate("mlp:64-8-10", data, rounds=8, seed=3, lr=0.1, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return edgefl.data.load("digits")


@pytest.mark.parametrize("fleet", FLEETS)
def test_records_are_those_of_a_fleet_that_is_awake(fleet: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch):
    crowds: list[Crowd] = []

    def awake(names, make, describe, lively):
        crowds.append(Crowd(names, make, describe, range(len(names))))
        return crowds[-1]

    asked = run(digits, **FLEETS[fleet])
    monkeypatch.setattr(module, "Crowd", awake)
    heard = run(digits, **FLEETS[fleet])
    assert len(crowds) == 1 and len(crowds[0].made) == FLEETS[fleet]["devices"]
    assert heard.rounds == asked.rounds
    assert heard.params.tobytes() == asked.params.tobytes()


def test_a_device_that_no_round_asks_is_never_made(digits: Dataset, monkeypatch: pytest.MonkeyPatch):
    crowds: list[Crowd] = []

    def noted(*args):
        crowds.append(Crowd(*args))
        return crowds[-1]

    monkeypatch.setattr(module, "Crowd", noted)
    history = edgefl.simulate("mlp:64-8-10", digits, rounds=3, devices=300, fraction=0.02, seed=1)
    asked = {name for record in history.rounds for name in msgspec.json.decode(record.cohort)}
    assert set(crowds[0].made) == asked and len(asked) < 30


@pytest.mark.parametrize(("devices", "kept"), [(20, True), (5000, False)])
def test_a_device_that_is_hardly_asked_again_keeps_no_residual(
    devices: int, kept: bool, digits: Dataset, monkeypatch: pytest.MonkeyPatch
):
    crowds: list[Crowd] = []

    def noted(*args):
        crowds.append(Crowd(*args))
        return crowds[-1]

    monkeypatch.setattr(module, "Crowd", noted)
    edgefl.simulate(
        "mlp:64-8-10", digits, devices=devices, rounds=4, fraction=4 / devices, partition="windows:50", codec="ecq",
        error_feedback=True, seed=1,
    )  # fmt: skip
    slots = [host.disk.slots for host in crowds[0].made.values()]
    assert any("residual" in names for names in slots) == kept
