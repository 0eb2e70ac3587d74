"""What an update leaves on its device becomes current together with the update, or not at all, whatever its kind.

What the codec dropped, what a local rule knows, what is personal (device/slots.py): by real trainings, the session that
decides, and the agent's database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from edgefl_agent.store import AgentStore
from machines import (
    FEDERATION,
    PARAMS,
    PLAN,
    RUN,
    feed,
    give,
    make_round,
    make_session,
    of,
    publish_model,
    receipt,
    serve,
)

from edgefl.core.trainer import Trainer
from edgefl.device.events import DropUpdate, MarkCounted, SaveUpdate, StartTraining, Trained
from edgefl.device.session import DeviceSession
from edgefl.device.slots import KEPT, Slot
from edgefl.device.training import train_update
from edgefl.federation import make_manifest
from edgefl.machine import Connected, Received
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import decode, encode
from edgefl.settings import Settings

RESIDUAL = {"codec.name": "ecq"}
KINDS = {
    "fedavg": (RESIDUAL, {"residual"}),
    "fednova": (RESIDUAL, {"residual"}),
    "fedcm": (RESIDUAL, {"residual"}),
    "mime-lite": (RESIDUAL, {"residual"}),
    "scaffold": (RESIDUAL, {"residual", "control"}),
    "feddyn": (RESIDUAL, {"residual", "control"}),
    "mifa": ({"codec.name": "ecq", "codec.error_feedback": False}, {"memory"}),
    "fedper": (RESIDUAL | {"personal.keep": ["b"]}, {"residual", "personal"}),
    "fedrep": (RESIDUAL | {"personal.keep": ["b"]}, {"residual", "personal"}),
    "ditto": (RESIDUAL, {"residual", "personal"}),
    "apfl": (RESIDUAL, {"residual", "personal"}),
}
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 99)).astype(np.float32), RNG.integers(0, 10, 20)
End = Callable[["Device"], None]


def manifest_of(name: str) -> Manifest:
    settings = Settings().replace(
        **{"strategy.name": name, "downlink.name": "raw32", "downlink.span": 1, "rounds.expect": 4,
           "train.epochs": 2, "train.batch_size": 4, "train.lr": 0.01} | KINDS[name][0]
    )  # fmt: skip
    return make_manifest(settings, FEDERATION, RUN, PLAN)


class Device:
    """A session and its disk; `kill` starts both again."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.store = AgentStore(folder)
        self.start()

    def start(self) -> None:
        self.session: DeviceSession = make_session(outbox=self.store.load())
        self.carry_out(feed(self.session, Connected(boot=7)) + give(self.session, self.manifest))

    def kill(self) -> None:
        self.store.close()
        self.store = AgentStore(self.folder)
        self.start()

    def carry_out(self, actions: Sequence[object]) -> None:
        for action in actions:
            match action:
                case SaveUpdate(outbox, slots):
                    self.store.save(outbox, slots)
                case MarkCounted(attempt):
                    self.store.mark_counted(attempt)
                case DropUpdate():
                    self.store.drop(action.applied, action.receipt)

    def announce(self, number: int, version: int) -> list[object]:
        """A round is announced, with the params of its version."""
        manifest, params = self.manifest, np.tile(PARAMS + np.float32(version / 8), 1 + len(self.manifest.sides))
        out = give(self.session, make_round(number, version, params=params, manifest=manifest))
        parts = [Received(part.topic, part.payload) for part in publish_model(version, params, manifest)]
        actions = serve(self.session, out, parts)
        self.carry_out(actions)
        return actions

    def train(self, number: int, version: int, used: list[str] | None = None) -> dict[str, bytes]:
        """The device trains in a round, and saves its update; the slots that it leaves. `used` gets the names of those
        that serve this training."""

        def load(name: str) -> Slot | None:
            slot = self.store.load_slot(name)
            if used is not None and slot is not None and not slot.unusable(name, self.manifest, number):
                used.append(name)
            return slot

        (start,) = of(self.announce(number, version), StartTraining)
        done = train_update(Trainer(PLAN, batch=4), start.job, "a", X, Y, load_slot=load)
        self.carry_out(feed(self.session, Trained(start.job, done.blob, done.slots)))
        return dict(done.slots)

    def told(self, number: int, outcome: str = "counted") -> None:
        self.carry_out(feed(self.session, receipt(outcome, round=number)))

    @property
    def current(self) -> dict[str, tuple[int, bytes]]:
        """The slots that the next training goes on from, and the rounds that they are of."""
        found = {name: self.store.load_slot(name) for name in KEPT}
        return {name: (slot.round, slot.blob) for name, slot in found.items() if slot is not None}


def _counts(device: Device) -> None:
    device.told(2)
    device.announce(3, 2)


def _is_rejected(device: Device) -> None:
    device.told(2, "rejected")


def _is_in_no_model(device: Device) -> None:
    device.told(2)
    device.announce(3, 1)  # round 2 was abandoned


def _is_late(device: Device) -> None:
    """No receipt: a device asks, where something of its own is at stake, and is told that the update came too late."""
    device.announce(3, 2)
    device.told(2, "rejected")


ENDS: dict[str, tuple[End, int]] = {
    "counted": (_counts, 2),
    "rejected": (_is_rejected, 1),
    "abandoned": (_is_in_no_model, 1),
    "lost": (_is_late, 1),
}


@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", KINDS)
def test_i11_all_slots_follow_their_update(name: str, end: str, killed: bool, tmp_path: Path) -> None:
    finish, of_round = ENDS[end]
    device = Device(tmp_path, manifest_of(name))
    slots = {1: device.train(1, 0)}
    assert set(slots[1]) == KINDS[name][1] and not device.current
    device.told(1)
    assert not device.current  # in the sum, and in no model yet
    slots[2] = device.train(2, 1)
    assert all(slots[2][kind] != slots[1][kind] for kind in KINDS[name][1])
    first = {kind: (1, blob) for kind, blob in slots[1].items()}
    assert device.current == first
    if killed:
        device.kill()
        device.announce(2, 1)
    assert device.current == first
    finish(device)
    if killed:
        device.kill()
    assert device.current == {kind: (of_round, blob) for kind, blob in slots[of_round].items()}
    assert device.store.load() is None
    device.store.close()


def test_a_run_that_goes_on_under_a_version_with_another_form_drops_its_residuals_once(tmp_path: Path) -> None:
    """As CHANGELOG.md says: `forms` are a part of the manifest, to whose id residuals belong. What a local rule knows
    belongs to the run."""
    now = manifest_of("scaffold")
    before = decode(Manifest, encode(msgspec.structs.replace(now, forms=[])), 10_000)  # of a version without forms
    assert now.forms == ["live"] and before.run == now.run and before.id != now.id
    device = Device(tmp_path, before)
    device.train(1, 0)
    device.told(1)
    device.announce(2, 1)
    assert {kind: number for kind, (number, _) in device.current.items()} == {"residual": 1, "control": 1}
    device.manifest = now
    device.carry_out(give(device.session, now))
    used = []
    device.train(2, 1, used)
    assert used == ["control"]
    device.told(2)
    device.train(3, 2, used := [])
    assert sorted(used) == ["control", "residual"]
    device.store.close()
