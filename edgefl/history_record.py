"""The record of a round that is over, as the aggregator stores it and as `--json` writes it. No I/O."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

State = Literal["committed", "abandoned", "evaluated", "refused", "rollback"]
MOVED = ("committed", "rollback")  # states whose version is a new one
SPENT = ("committed", "refused")  # states in which updates count for good


def without_name(text: str, device: str) -> str:
    """The text without the name of this device, where it stands by itself."""
    return re.sub(rf"(?<![A-Za-z0-9._-]){re.escape(device)}(?![A-Za-z0-9._-])", "a device that was removed", text)


NOTHING = msgspec.Raw(b"{}")  # left out, if it is this very object


class RoundRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One round that is over. Bytes are MQTT payload bytes; `seconds` run from opening to commit. As JSON, fields that
    have their default are left out.

    `bytes_up` counts every part of an update that arrived for the round. `bytes_down` counts what the reporting devices
    say they have received since their last report: manifest, rounds, model, receipts. `float32_bytes` is the size of an
    uncompressed model for each device that reported; a round that only evaluates has 0.

    `devices` reported an update of this round; `folded` lists late updates of earlier rounds as (device, round).
    `reported` counts both. `rejected` counts updates refused as invalid, `deferred` those that had to wait until the
    aggregator had room.

    `accuracy` and `loss` are the new model's on the test set, if there is one. `device_accuracy` and `device_loss` are
    means over the `device_examples` examples that `devices` hold out, for the model that the round began with. A round
    that only evaluates has the state "evaluated" and the version that it found.

    `personal` of the devices that evaluated have a model of their own (docs/personal.md), of which `own` keep it, since
    it is better on their examples than the received one. `personal_accuracy` and `personal_loss` are those of the
    models that they keep, on the same examples as `device_accuracy`.

    A round whose model the gate refuses (coordinator/model/gate.py) has the state "refused" and the version that it
    found; its scores are those of the refused model. In a "rollback" the operator has had the model of version
    `restored` committed again, as a new version; a round that was open then ended with it.

    `why` says why a round was abandoned or refused: of an abandoned one, what became of the devices that it asked, at
    most a dozen by name.

    `closed_at` is when the round ended, in seconds after the start of 1970, UTC; 0 if the aggregator's clock could not
    be trusted. It is virtual in a simulation.

    `budgets` has the devices whose owners' byte budgets mattered at the round's end: the bytes that the update could
    take, 0 for a device that sat the round out.

    `missed` says of each device that was asked and has not counted why it did not, or why the round did not wait for it
    (coordinator/devices/standing.py); devices that a round closed without, at its goal, are left out. `deadlines`: how
    many deadlines the round lasted, rounded up.

    `chain` is the hash of all model versions up to `version`, and `previous` that of the version before, where keys are
    on (coordinator/signing.py).
    `refused` counts the messages that were refused since the round before was over, by device and code
    (protocol/refusals.py). `barred` has the devices that were in quarantine or muted at the round's end, and why.
    `profile`: devices told statistics of their columns (coordinator/profile/rounds.py). If the model got them as its
    scaling, the state is "committed", else "evaluated".
    `lowered` has the devices whose update counted with a lower weight, and that weight
    (coordinator/updates/influence.py).

    Of a masked round (docs/masked.md): `helpers_s`, the seconds until the helpers had opened its sum, or had not;
    `epsilon`, what is spent of the privacy budget once it is over; `helped`, the epoch of each helper that has opened
    its sum, and `signer_epoch`, the newest epoch of the aggregator's certificate in which a sum was asked for that was
    opened, by this round or an earlier one. `led`: rounds were left out at a helper's or the operator's word, and no
    sum was opened since. Its `num_examples` are the weights of `devices`. Where the clip is adaptive, `clip` is that of
    this round, and `within` the share of updates that were no longer, but for noise; None if the sum was not opened.

    Only a simulation knows the last two: `elapsed_s`, virtual seconds from the start of the run to the round's end, and
    `joules`, what all devices have spent on the federation since the round before was over, as a range; None if nobody
    has said what they spend (simulation/devices/world.py).
    """

    round: int
    state: State
    version: int
    reported: int
    devices: list[str]
    num_examples: int
    train_loss: float | None
    bytes_up: int
    bytes_down: int
    seconds: float
    accuracy: float | None = None
    loss: float | None = None
    float32_bytes: int = 0
    device_examples: int = 0
    device_accuracy: float | None = None
    device_loss: float | None = None
    rejected: int = 0
    deferred: int = 0
    by_device: msgspec.Raw = msgspec.field(name="traffic", default=msgspec.Raw(b"{}"))
    folded: list[tuple[str, int]] = []
    cohort: msgspec.Raw = msgspec.Raw(b"null")  # as the round announced it
    why: str = ""
    closed_at: int = 0
    budgets: dict[str, int] = {}
    attempt: int = 0  # the aggregator's start that closed the round (fence.py); 0 in records that are older
    missed: dict[str, str] = {}
    by_time: msgspec.Raw = msgspec.field(name="times", default=msgspec.Raw(b"{}"))
    deadlines: int = 1
    restored: int | None = None
    previous: str = ""
    chain: str = ""
    refused: dict[str, dict[str, int]] = {}
    barred: dict[str, str] = {}
    lowered: dict[str, int] = {}
    by_influence: msgspec.Raw = msgspec.field(name="influence", default=msgspec.Raw(b"{}"))
    profile: bool = False
    elapsed_s: float = 0.0
    joules: tuple[float, float] | None = None
    personal: int = 0
    own: int = 0
    personal_accuracy: float | None = None
    personal_loss: float | None = None
    by_loss: msgspec.Raw = msgspec.field(name="losses", default=NOTHING)
    helpers_s: float = 0.0
    epsilon: float = 0.0
    helped: dict[str, int] = {}
    signer_epoch: int = 0
    led: bool = False
    clip: float | None = None
    within: float | None = None

    @property
    def base(self) -> int:
        """The version that the round began with."""
        return self.version - self.has_new_model

    @property
    def has_new_model(self) -> bool:
        """Whether the version is a new one."""
        return self.state in MOVED

    @property
    def traffic(self) -> dict[str, tuple[int, int]]:
        """Device -> (bytes up, bytes down), for every device that sent a part; the sums are the round's.

        A record holds this as JSON, in a tenth of the memory: fleets are large and histories long.
        """
        return msgspec.json.decode(self.by_device, type=dict[str, tuple[int, int]])

    @property
    def times(self) -> dict[str, float]:
        """Device -> seconds from the opening of a round to the arrival of the device's whole valid update of it, for
        every such update that arrived in this round; held as JSON, like `traffic`."""
        return msgspec.json.decode(self.by_time, type=dict[str, float])

    @property
    def influence(self) -> dict[str, tuple[int, float]]:
        """Device -> (examples, norm of the delta) of the newest update that counted, or was refused for these two; held
        as JSON, like `traffic`. Empty where influence is not bounded."""
        return msgspec.json.decode(self.by_influence, type=dict[str, tuple[int, float]])

    @property
    def losses(self) -> dict[str, tuple[int, float]]:
        """Device -> (examples, training loss) of the newest update that counted; held as JSON, like `traffic`. Empty
        where `rounds.selection` does not choose by them."""
        return msgspec.json.decode(self.by_loss, type=dict[str, tuple[int, float]])

    def without_detail(self) -> RoundRecord:
        """The record without what it has of each device: the sums of a round that is long over."""
        return msgspec.structs.replace(self, **DETAIL)

    def without_device(self, device: str) -> RoundRecord:
        """The record without the name of one device, which counts in its sums all the same."""
        found: dict[str, Any] = {"why": without_name(self.why, device)}
        for name in DETAIL:
            value = getattr(self, name)
            raw = isinstance(value, msgspec.Raw)
            value = msgspec.json.decode(value) if raw else value
            if isinstance(value, dict) and name != "cohort":
                value = {key: told for key, told in value.items() if key != device}
            elif isinstance(value, list):
                value = [one for one in value if (one if isinstance(one, str) else one[0]) != device]
            found[name] = msgspec.Raw(msgspec.json.encode(value)) if raw else value
        return msgspec.structs.replace(self, **found)


# What a record has of each device, and its value where that was dropped.
DETAIL: dict[str, Any] = {
    "devices": [], "folded": [], "by_device": msgspec.Raw(b"{}"), "cohort": msgspec.Raw(b"null"), "missed": {},
    "by_time": msgspec.Raw(b"{}"), "budgets": {}, "refused": {}, "barred": {}, "lowered": {},
    "by_influence": msgspec.Raw(b"{}"), "by_loss": NOTHING, "helped": {},
}  # fmt: skip
