"""Tally: what has arrived for the open round, and its record when it is over. No I/O. Part of RoundCoordinator."""

from __future__ import annotations

from collections import Counter

import msgspec

from ..history_record import RoundRecord, State
from ..machine import Note
from ..protocol.topics import UpdateTopic
from ..settings import Mode
from .admission import Judged
from .claims import Claims, Counted
from .gathering import Gathering
from .influence import Claim
from .intake import RoundIntake
from .losses import Losses
from .opening import DEADLINES, Opening
from .pace import Pacing
from .patience import Patience
from .standing import Outcome
from .sums import Sums


class Share(msgspec.Struct, gc=False):
    """One device's part in the open round.

    `waiting`: the round waits for the device's update, which is neither counted nor rejected yet; `waited`: it has
    waited for it. `folded`: a late update of it counts as its report, in an asynchronous round. `bytes_up` is None
    until a part of an update has arrived; `bytes_down` comes from the header of the update that was counted. `seconds`
    is the report time of the last whole valid update that arrived.
    """

    waiting: bool = False
    waited: bool = False
    counted: bool = False
    rejected: bool = False
    folded: bool = False
    bytes_up: int | None = None
    bytes_down: int = 0
    seconds: float | None = None


class Tally:
    """One open round. It closes when it waits for no device any more, or earlier at `goal` updates if that is set; with
    enough reports at `patient_until`, and at its deadline `closes_at`, unless devices are at work that it needs.
    Patience begins at `patient_from`: when the round opens, and anew after an outage of the broker.

    `version` is the model that devices train from. `resumed`: an earlier process may have opened the same round.
    `folded` has the late updates of earlier rounds that were added to this one, by device and round, with the bytes
    that the device received. In asynchronous rounds, with `any_round`, they count towards goal and minimum, and no
    device has two updates in one round, late or not.
    `gathering` has what devices tell of their columns, in a round of that mode.
    `spoilt` has saved late updates that proved to be of no use. `keeps_losses`: the record says what loss each device
    has reported.
    """

    def __init__(
        self, opening: Opening, *, round: int, version: int, mode: Mode, opened_at: float, intake: RoundIntake,
        pacing: Pacing, any_round: bool = False, resumed: bool = False, gathering: Gathering | None = None,
        keeps_losses: bool = False,
    ) -> None:  # fmt: skip
        self.round, self.version, self.mode = round, version, mode
        self.opening, self.opened_at, self.closes_at = opening, opened_at, opened_at + opening.deadline_s
        self.patient_from = opened_at
        self.deadlines, self.resumed, self.gathering = opening.deadlines, resumed, gathering
        self.intake, self.cohort, self.goal, self.pacing = intake, opening.cohort, opening.goal, pacing
        self.folded: dict[tuple[str, int], int] = {}
        self.spoilt: list[tuple[str, int]] = []
        self.bytes_up = 0
        self._any_round = any_round
        self._patience = Patience(opening, known=not resumed)
        self._sums, self._claims = Sums(), Claims()
        self._losses = Losses(keeps_losses)
        # One entry a device, so that each name is kept once: every topic brings a new string.
        self._shares = {device: Share(waiting=True, waited=True) for device in opening.waiting}
        self._num_waiting = len(self._shares)
        self._num_counted = 0

    # What has happened

    def is_waiting_for(self, device: str) -> bool:
        share = self._shares.get(device)
        return share is not None and share.waiting

    def set_present(self, device: str, present: bool, is_worth: bool) -> None:
        """The device has come, and is worth waiting for or not; or it has gone."""
        if not present:
            self._stop_waiting(self._shares.get(device))
        elif is_worth and self.cohort.asks(device):
            self._wait_for(self._share(device))

    def extend(self, now: float, seconds: float) -> None:
        """The round goes on for another deadline."""
        self.closes_at, self.deadlines = now + seconds, self.deadlines + 1

    def note_time(self, device: str, seconds: float | None) -> None:
        """A whole valid update of the device has arrived, so long after its own round opened."""
        share = self._share(device)
        share.seconds = seconds
        if share.counted and seconds is not None:
            self._patience.note(seconds)

    def receive(self, device: str, size: int) -> None:
        """`size` bytes of an update by this device have arrived."""
        self.bytes_up += size
        share = self._share(device)
        share.bytes_up = (share.bytes_up or 0) + size

    def count(self, device: str, judged: Judged) -> None:
        """The device's update of this round has been added to the sum, or waits for that."""
        share = self._share(device)
        self._stop_waiting(share)
        share.counted, share.bytes_down = True, judged.header.bytes_down
        self._num_counted += 1
        if not judged.waits:
            self.settle(device, self.round, judged)

    def settle(self, device: str, round: int, judged: Judged) -> None:
        """The update of the device, of this round or an earlier one, is in the sum."""
        self._sums.add(judged.header)
        self._losses.add(device, round, judged)
        if round == self.round:  # a late update's scores are those of an earlier model
            self._sums.add_scores(judged.header)
        if judged.claim is not None:
            self._claims.add(device, Counted(round, *judged.claim, judged.header.num_examples))

    def refuse(self, where: UpdateTopic, claim: Claim) -> None:
        """The update was refused for its influence; the device's claim counts for later bounds all the same."""
        self._claims.add(where.device, Counted(where.round, *claim, 0))

    def withdraw(self, device: str, round: int) -> None:
        """An update that was counted, and has waited, was refused in the end."""
        if round == self.round:
            share = self._share(device)
            share.counted, share.rejected, share.bytes_down = False, True, 0
            self._num_counted -= 1
        else:
            del self.folded[device, round]
            self._share(device).folded = False
            self.spoil(device, round)

    def reject(self, device: str) -> None:
        """The device's update of this round was refused as invalid."""
        share = self._share(device)
        self._stop_waiting(share)
        share.rejected = True

    def fold(self, device: str, round: int, judged: Judged) -> None:
        """The device's late update of `round` has been added to the sum, or waits for that."""
        self.folded[device, round] = judged.header.bytes_down
        if not judged.waits:
            self.settle(device, round, judged)
        if self._any_round:
            share = self._share(device)
            self._stop_waiting(share)
            share.folded = True

    def spoil(self, device: str, round: int) -> None:
        """The device's saved update of `round` is of no use."""
        self.spoilt.append((device, round))

    def spoil_folded(self) -> None:
        """The sum is not finite: the late updates in it would spoil the next round too."""
        self.spoilt += self.folded

    def _share(self, device: str) -> Share:
        share = self._shares.get(device)
        if share is None:
            share = self._shares[device] = Share()
        return share

    def _wait_for(self, share: Share) -> None:
        if not (share.waiting or share.counted or share.rejected or share.folded):
            share.waiting = share.waited = True
            self._num_waiting += 1

    def _stop_waiting(self, share: Share | None) -> None:
        if share is not None and share.waiting:
            share.waiting = False
            self._num_waiting -= 1

    # What follows from it

    def counted_in(self, device: str) -> int | None:
        """0, for a round that is open, if the device's update of this round is counted; else None."""
        share = self._shares.get(device)
        return 0 if share is not None and share.counted else None

    @property
    def waiting(self) -> list[str]:
        """Devices that the round waits for."""
        return [device for device, share in self._shares.items() if share.waiting]

    @property
    def counted(self) -> list[str]:
        """Devices whose update of this round is counted."""
        return [device for device, share in self._shares.items() if share.counted]

    @property
    def times(self) -> list[float]:
        """The report times of these."""
        return [share.seconds for share in self._shares.values() if share.counted and share.seconds is not None]

    @property
    def rejected(self) -> list[str]:
        """Devices with an update of this round that was rejected."""
        return [device for device, share in self._shares.items() if share.rejected]

    def is_full(self, device: str) -> bool:
        """Whether this round takes in no further update of the device: it has one, and is asynchronous."""
        share = self._shares.get(device)
        return self._any_round and share is not None and (share.counted or share.folded)

    def lacks(self, device: str, is_worth: bool) -> bool:
        """Whether a report of this device, which is present, may still be waited for."""
        share = self._shares.get(device)
        if share is not None and (share.counted or share.rejected or share.folded or share.waiting):
            return share.waiting
        return is_worth and self.cohort.asks(device)

    @property
    def waited(self) -> list[str]:
        """Devices that the round has waited for, even if they are gone by now."""
        return [device for device, share in self._shares.items() if share.waited]

    @property
    def unreported(self) -> list[str]:
        """Devices whose update the round has waited for, or has begun to receive, and has not counted."""
        return [device for device, share in self._shares.items() if not share.counted]

    @property
    def num_waiting(self) -> int:
        return self._num_waiting

    @property
    def num_counted(self) -> int:
        return self._num_counted

    @property
    def reports(self) -> int:
        """Updates that count towards goal and minimum, each of another device."""
        return self._num_counted + (len(self.folded) if self._any_round else 0)

    @property
    def complete(self) -> bool:
        """Whether the round need not wait for its deadline."""
        return not self._num_waiting or self.at_goal

    @property
    def patient_until(self) -> float:
        """When the round closes if it has enough reports."""
        patience_s = self._patience.lasts_s(self._num_counted, self._num_waiting)
        return min(self.closes_at, self.patient_from + patience_s + self.pacing.spread_s)

    @property
    def at_goal(self) -> bool:
        return self.goal is not None and self.reports >= self.goal

    def outcome(self) -> Outcome:
        """What the round has shown of its devices, if it ends now."""
        reported = frozenset(device for device, share in self._shares.items() if share.counted or share.folded)
        proves_nothing = self.at_goal or self.gathering is not None
        return Outcome(self.round, self.waited, reported, self.rejected, self.opening.skipped, proves_nothing)

    def late_to_drop(self, committed: bool) -> list[tuple[str, int]]:
        """Saved late updates that need not be kept any longer, by device and round."""
        return [*self.spoilt, *(self.folded if committed else ())]

    def record(self, num_params: int, min_reports: int, now: float) -> RoundRecord:
        """The round's record, if it closes `now`; abandoned if `reports` is below `min_reports`."""
        sums, reported = self._sums, self._num_counted + len(self.folded)
        state: State = "committed" if self.mode == "train" else "evaluated"
        if self.reports < max(1, min_reports):
            state = "abandoned"
        return RoundRecord(
            round=self.round,
            state=state,
            version=self.version + (state == "committed"),
            reported=reported,
            devices=sorted(self.counted),
            num_examples=sums.examples,
            train_loss=sums.loss.value,
            bytes_up=self.bytes_up,
            bytes_down=sums.bytes_down,
            seconds=now - self.opened_at,
            float32_bytes=4 * num_params * reported if self.mode == "train" else 0,
            rejected=len(self.rejected),
            deferred=self.intake.deferred,
            device_examples=sums.evaluated,
            device_loss=sums.eval_loss.value,
            device_accuracy=sums.eval_accuracy.value,
            personal=sums.personal,
            own=sums.own,
            personal_loss=sums.personal_loss.value,
            personal_accuracy=sums.personal_accuracy.value,
            by_device=self.traffic(),
            folded=sorted(self.folded),
            cohort=msgspec.Raw(msgspec.json.encode(self.cohort.message)),
            by_time=self._times(),
            deadlines=self.deadlines,
            lowered=self._claims.lowered,
            by_influence=self._claims.to_json(),
            by_loss=self._losses.to_json(),
        )

    def goes_on(self, min_reports: int, at_work: list[str]) -> Note:
        """What the log says when another deadline begins."""
        names = ", ".join(at_work[:12]) + (f", {len(at_work) - 12} more" if len(at_work) > 12 else "")
        text = f"round {self.round} goes on, in deadline {self.deadlines} of at most {DEADLINES}"
        return Note("warning", f"{text}: {self.reports} of {min_reports} reports, at work: {names}", round=self.round)

    def _times(self) -> msgspec.Raw:
        """{device: seconds} as JSON."""
        told = {device: round(share.seconds, 3) for device, share in self._shares.items() if share.seconds is not None}
        return msgspec.Raw(msgspec.json.encode(told, order="sorted"))

    def traffic(self) -> msgspec.Raw:
        """{device: [bytes up, bytes down]} as JSON, written device by device: as a dictionary a fleet is large."""
        late: Counter[str] = Counter()
        for (device, _), bytes_down in self.folded.items():
            late[device] += bytes_down
        encode, out = msgspec.json.encode, bytearray()
        for device in sorted(device for device, share in self._shares.items() if share.bytes_up is not None):
            share = self._shares[device]
            out += b"%b%b:%b" % (
                b"," if out else b"{", encode(device), encode((share.bytes_up, share.bytes_down + late[device])),
            )  # fmt: skip
        out += b"}" if out else b"{}"
        return msgspec.Raw(out)
