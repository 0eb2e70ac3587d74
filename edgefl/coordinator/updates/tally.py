"""Tally: what has arrived for the open round, and its record when it is over. No I/O. Part of RoundCoordinator."""

from __future__ import annotations

from collections import Counter

import msgspec

from ...history_record import RoundRecord, State
from ...machine import Note
from ...protocol.topics import UpdateTopic
from ...settings import Mode
from ..devices.standing import Outcome
from ..opening import DEADLINES, Opening
from ..patience import Patience
from ..profile.gathering import Gathering
from ..profile.summed import SummedProfile
from .admission import Judged
from .claims import Claims, Counted
from .influence import Claim
from .intake import RoundIntake
from .losses import Losses
from .masked_sum import MaskedSum
from .pace import Pacing
from .shares import Shares
from .sums import Sums


class Tally(Shares):
    """One open round. It closes when it waits for no device any more, or earlier at `goal` updates if that is set; with
    enough reports at `patient_until`, and at its deadline `closes_at`, unless devices are at work that it needs.
    Patience begins at `patient_from`: when the round opens, and anew after an outage of the broker.

    `version` is the model that devices train from. `resumed`: an earlier process may have opened the same round.
    `folded` has the late updates of earlier rounds that were added to this one, by device and round, with the bytes
    that the device received. In asynchronous rounds, with `any_round`, they count towards goal and minimum, and no
    device has two updates in one round, late or not.
    `gathering` has what devices tell of their columns, in a round of that mode.
    `masked` has the sum of a masked round.
    `spoilt` has saved late updates that proved to be of no use. `keeps_losses`: the record says what loss each device
    has reported.
    """

    def __init__(
        self, opening: Opening, *, round: int, version: int, mode: Mode, opened_at: float, intake: RoundIntake,
        pacing: Pacing, any_round: bool = False, resumed: bool = False,
        gathering: Gathering | SummedProfile | None = None, keeps_losses: bool = False, masked: MaskedSum | None = None,
    ) -> None:  # fmt: skip
        super().__init__(opening.waiting, opening.cohort, any_round=any_round)
        self.round, self.version, self.mode = round, version, mode
        self.opening, self.opened_at, self.closes_at = opening, opened_at, opened_at + opening.deadline_s
        self.patient_from = opened_at
        self.deadlines, self.resumed, self.gathering = opening.deadlines, resumed, gathering
        self.intake, self.goal, self.pacing, self.masked = intake, opening.goal, pacing, masked
        self.folded: dict[tuple[str, int], int] = {}
        self.spoilt: list[tuple[str, int]] = []
        self.bytes_up = 0
        self._patience = Patience(opening, known=not resumed)
        self._sums, self._claims = Sums(), Claims()
        self._losses = Losses(keeps_losses)

    # What has happened

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

    # What follows from it

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
        full = self.masked is not None and self.masked.is_full
        return full or (self.goal is not None and self.reports >= self.goal)

    def outcome(self) -> Outcome:
        """What the round has shown of its devices, if it ends now."""
        reported = frozenset(device for device, share in self._shares.items() if share.counted or share.folded)
        proves_nothing = self.at_goal or self.gathering is not None
        return Outcome(self.round, self.waited, reported, self.rejected, self.opening.skipped, proves_nothing)

    def late_to_drop(self, committed: bool) -> list[tuple[str, int]]:
        """Saved late updates that need not be kept any longer, by device and round."""
        return [*self.spoilt, *(self.folded if committed else ())]

    def record(self, num_params: int, min_reports: int, now: float) -> RoundRecord:
        """The round's record, if it closes `now`; abandoned if `reports` is below `min_reports`, or if no sum of theirs
        could be opened."""
        sums, reported = self._sums, self._num_counted + len(self.folded)
        state: State = "committed" if self.mode == "train" else "evaluated"
        if self.reports < max(1, min_reports) or (self.masked is not None and not self.masked.is_openable):
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
            by_time=self.times_json(),
            deadlines=self.deadlines,
            lowered=self._claims.lowered,
            by_influence=self._claims.to_json(),
            by_loss=self._losses.to_json(),
            profile=self.gathering is not None,
            clip=None if self.masked is None else self.masked.moving_clip,
        )

    def goes_on(self, min_reports: int, at_work: list[str]) -> Note:
        """What the log says when another deadline begins."""
        names = ", ".join(at_work[:12]) + (f", {len(at_work) - 12} more" if len(at_work) > 12 else "")
        text = f"round {self.round} goes on, in deadline {self.deadlines} of at most {DEADLINES}"
        return Note("warning", f"{text}: {self.reports} of {min_reports} reports, at work: {names}", round=self.round)

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
