"""Masked rounds in the simulation: schedules, and what only the simulation knows of the sums.

A device's integers follow from its name and the terms alone, so the simulation knows what each sum has to be; its seeds
are fresh in every training. In some schedules one device seals nonsense, and in half of them sums have noise
(noise.py).
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.coordinator.masked.terms import MaskedTerms
from edgefl.device.columns.shares import shares_of
from edgefl.device.columns.statistics import of_examples
from edgefl.device.events import TrainJob
from edgefl.device.masked import terms_of
from edgefl.device.owner.policy import OPEN, OwnersWord
from edgefl.history_record import RoundRecord
from edgefl.masking.profile import tell
from edgefl.masking.update import _AT_BOXES, mask
from edgefl.masking.vector import Mean, mean, quantize
from edgefl.privacy.clipping import ClipState
from edgefl.privacy.ledger import Ledger
from edgefl.profiles import Profile
from edgefl.protocol.profile_terms import MOMENTS
from edgefl.protocol.round import Round
from edgefl.protocol.terms import Terms
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import FeatureSettings, PrivacySettings, RoundSettings
from edgefl.simulation.tasks.task import Drawn
from edgefl.trust.ed25519 import fingerprint

from .helpers import HELPER, LEAST, certified
from .kept import Kept, kept, put_back
from .keys import ROOT
from .losses import Losses, losses_of
from .noise import DELTA, RANGES, RESTORED, NoiseTruth, Noisy
from .schedule import Schedule
from .violation import require

HELPER_S = 40.0
OWNER = OwnersWord(replace(OPEN, masked=True, least_devices=LEAST, helpers=frozenset({HELPER})))


def draw(seed: int) -> Schedule:
    """A schedule whose rounds are masked; its other numbers are those of a schedule with keys."""
    found, noisy = Schedule.draw(3 * seed + 1), Noisy.draw(seed)
    rounds, devices = found.config, len(found.devices)
    rounds = msgspec.structs.replace(
        rounds, mode="sync", late="drop", evaluate_every=None, min_reports=max(LEAST, rounds.min_reports),
        goal=rounds.goal if rounds.mode == "sync" else None,
        over_select=rounds.over_select if rounds.mode == "sync" else None, expect=rounds.expect or devices,
        rounds=noisy.rounds,
    )  # fmt: skip
    manifest = msgspec.structs.replace(
        found.manifest, codec="raw32", codec_options={}, forms=[], error_feedback=False, downlink="raw32",
        downlink_options={}, span=1, local=None,
    )  # fmt: skip
    if noisy.turns:
        turns = {"goal": None, "over_select": None, "fraction": 1 / noisy.separation, "min_reports": LEAST}
        rounds = msgspec.structs.replace(rounds, **turns)
    faults = (*found.faults, *losses_of(seed), *((RESTORED,) if noisy.restored else ()))
    left_out = _left_out(seed, found, rounds)
    hostile, unlisted = (left_out if seed % 3 == kind else "" for kind in (1, 2))
    return replace(
        found, manifest=manifest, config=rounds, masked=True, hostile=hostile, unlisted=unlisted, noisy=noisy,
        faults=faults,
    )  # fmt: skip


def _left_out(seed: int, schedule: Schedule, rounds: RoundSettings) -> str:
    """A device that helpers may leave out: the others that have no handicap are enough for a round. "" if they are
    not."""
    healthy = [device for device in schedule.devices if device not in schedule.lasting.handicaps]
    enough = len(healthy) > max(rounds.min_reports, LEAST)
    return healthy[seed % len(healthy)] if enough else ""


def privacy_of(schedule: Schedule) -> PrivacySettings:
    groups = 2 if schedule.seed % 4 == 0 and len(schedule.devices) >= 2 * LEAST else 1
    transform = "hadamard" if schedule.seed % 2 else "subset"
    settings = PrivacySettings(
        masked=True, helpers=HELPER, helper_s=HELPER_S, least=LEAST, share=0.5, bits=12, transform=transform,
        groups=groups, clip_quantile=0.5 if schedule.seed % 5 == 1 else None,
    )  # fmt: skip
    return msgspec.structs.replace(settings, **schedule.noisy.over())


def features_of(schedule: Schedule) -> FeatureSettings:
    """With noise a profile needs ranges."""
    return RANGES if schedule.noisy else FeatureSettings()


def masked_terms(
    schedule: Schedule, moved: ClipState | None = None, ledger: Ledger | None = None, epoch: int = 1,
    says: Losses | None = None,
) -> MaskedTerms | None:  # fmt: skip
    """What the aggregator makes terms with: where the clip is, what was spent, the epoch of the helper's keys, and what
    its operator says."""
    if not schedule.masked:
        return None
    party, certificate = certified(epoch)
    word = {} if says is None else {"told": says.told, "opened": says.opened}
    if schedule.noisy and ledger is None:
        ledger = Ledger(fingerprint(ROOT.public), DELTA)
    return MaskedTerms(
        msgspec.structs.replace(privacy_of(schedule), **word), schedule.manifest, most=len(schedule.devices),
        rounds=schedule.noisy.rounds or 0,
        helpers=[party], certificates=[certificate], ledger=ledger, features=features_of(schedule),
        moved=moved,
    )  # fmt: skip


def integers(device: str, terms: Terms, delta: np.ndarray) -> np.ndarray:
    """(L,) int32: rounding is the same in every training of a device under the same terms."""
    return quantize(delta.astype(np.float32), 1, terms, Drawn(f"rounding {device} {terms.digest.hex()}")).q


def answer(
    job: TrainJob, device: str, delta: np.ndarray, salt: object, *, nonsense: bool = False
) -> tuple[bytes, np.ndarray, bytes]:
    """The update, which is still to be signed, with `nonsense` in its box or not; its integers, and H."""
    terms = terms_of(job.round, job.manifest)
    q = integers(device, terms, delta)
    return UpdateHeader.masked().to_bytes() + _sealed(q, terms, device, salt, nonsense), q, terms.digest


def profile_answer(
    job: TrainJob, device: str, x: np.ndarray, y: np.ndarray, salt: object, *, nonsense: bool = False
) -> tuple[bytes, np.ndarray, bytes]:
    """As `answer`, of what the device tells of the columns of its data."""
    terms, plan = terms_of(job.round, job.manifest), job.manifest.plan
    assert terms.profile is not None
    if terms.profile.ranges:
        q = integers(device, terms, shares_of(plan, x, y, terms.profile))
    else:
        q = tell(of_examples(plan, x, y), len(x), terms)
    return UpdateHeader.masked(profile=True).to_bytes() + _sealed(q, terms, device, salt, nonsense), q, terms.digest


def _sealed(q: np.ndarray, terms: Terms, device: str, salt: object, nonsense: bool) -> bytes:
    payload = mask(q.copy(), terms, device, None, Drawn(f"{device} {salt}"))
    if nonsense:
        begins, ends = _AT_BOXES + 2, len(payload) - terms.packed_bytes
        payload = payload[:begins] + Drawn(f"nonsense {salt}")(ends - begins) + payload[ends:]
    return payload


class MaskedTruth:
    """`made` has the integers of every update, by device and H; `sets` the set that each round was asked for. Those of
    the `hostile` device are in no sum. `clip` is that of the next round, by the records that are durable."""

    def __init__(self, schedule: Schedule) -> None:
        self._hostile, self.noise = schedule.hostile, NoiseTruth(schedule.noisy)
        self._clipping = privacy_of(schedule).clipping
        self.clip = self._clipping.first
        self.made: dict[tuple[str, bytes], np.ndarray] = {}
        self.sets: dict[int, SavedAsk] = {}
        self.opened: dict[tuple[str, int], bytes] = {}  # run, round -> digest of the set that left the helper
        self._saved: dict[str, int] = {}  # run -> the newest round that a helper has on disk, or was to have
        self._has_gone_back, self._pending = False, 0
        self._before = 0  # the newest round of this run that was opened before the database went back
        self._in_vain = 0  # sets of such rounds that this process has asked for

    # What goes back with a database (losses.py)

    def kept(self) -> Kept:
        return kept(self, ("clip", "sets"))

    def went_back(self, backup: Kept, run: str, pending: int) -> None:
        """To a backup, in which helpers were still to answer for the round `pending`; 0: for none."""
        put_back(self, backup)
        self._has_gone_back, self._pending, self._before = True, pending, self._newest(run)

    def begin_run(self) -> None:
        self.clip, self.sets, self._before, self._pending = self._clipping.first, {}, 0, 0

    def began(self) -> None:
        """A process of the aggregator's begins."""
        self._in_vain = 0

    def newest_lost(self, run: str) -> int:
        """The newest of which a helper may tell, if the database has gone back; its answer may never have left."""
        return max(self._newest(run), self._saved.get(run, 0)) if self._has_gone_back else 0

    def _newest(self, run: str) -> int:
        return max((round for of, round in self.opened if of == run), default=0)

    def announced(self, round: Round) -> None:
        """I35: no round with noise is open that is not after all that were opened before the database went back, since
        helpers have told of them."""
        again = self.noise and round.terms and round.round <= self._before and round.round != self._pending
        require(not again, "I35", "round %d opens, and round %d was opened", round.round, self._before)

    def asked(self, saved: SavedAsk) -> None:
        """It is durable, and about to be shown to the helper."""
        round, digest = saved.record.round, saved.ask().set_digest
        known, opened = self.sets.get(round), self.opened.get((saved.terms.run, round))
        if known is None:
            if round <= self._before:
                self._asks_in_vain(round)
        else:
            same = known.ask().set_digest == digest
            anew = saved.record.base > known.record.base  # a damaged model was replaced: the helper refuses this set
            require(same or anew or opened is None, "I35", "another set of round %d", round)
        self.sets[round] = saved
        self.noise.asked(saved)

    def _asks_in_vain(self, round: int) -> None:
        """I35: for a round that is not after all that were opened before the database went back. Once."""
        self._in_vain += 1
        require(self._in_vain == 1, "I35", "round %d is lost too to a database that went back", round)

    def saves(self, run: str, round: int) -> None:
        """A helper is about to have it on disk that it has opened this round."""
        self._saved[run] = max(round, self._saved.get(run, 0))

    def answered(self, run: str, round: int, set_digest: bytes) -> None:
        """I34: a round of a run is opened for one set."""
        known = self.opened.setdefault((run, round), set_digest)
        require(known == set_digest, "I34", "round %d was opened for two sets", round)

    def mean(self, round: int, devices: list[str]) -> np.ndarray:
        """I35: what the sum of these devices' integers says, group by group: (P,) the median of the groups' means."""
        means = [each.delta for each in self._means(round, devices)]
        return means[0] if len(means) == 1 else np.median(means, axis=0).astype(np.float32)

    def over(self, record: RoundRecord) -> None:
        """I35: an adaptive clip follows from the records before, and from the votes of the devices that counted."""
        if record.why.startswith("no answer of helper"):  # which could have told of the others
            self._in_vain = 0
        if self._clipping.quantile is None or record.state == "rollback" or record.profile:
            require(record.clip is record.within is None, "I35", "a clip in %r", record)
            return
        require(record.clip == self.clip, "I35", "clip %r of round %d, not %r", record.clip, record.round, self.clip)
        if record.state == "committed":
            votes = float(np.median([each.within for each in self._means(record.round, record.devices)]))
            require(record.within == votes, "I35", "%r were within the clip, not %r", record.within, votes)
        self.clip = self._clipping.after(self.clip, record.within)

    def profiled(self, profile: Profile) -> None:
        """I35: a profile with noise tells the sums of its devices' shares, with the noise of its round."""
        saved = self.sets.get(profile.round)
        assert saved is not None and saved.terms.profile is not None
        if not saved.terms.profile.ranges:
            return
        (found,) = self._means(profile.round, sorted(saved.entries))
        terms = saved.terms.profile
        sums = (found.delta.astype(np.float64) * found.count)[terms.labels :].reshape(
            terms.columns, MOMENTS + terms.bins
        )
        for column in profile.columns:
            there, u = sums[column.column, :2]
            low, high = terms.range_of(column.column)
            mean = (low + high) / 2 + (high - low) / 2 * min(1.0, max(-1.0, u / there))
            right = column.devices == round(there) and abs(column.mean - mean) < 1e-9
            require(right, "I35", "%r of column %d, not %r of %r", column.mean, column.column, mean, there)

    def _means(self, round: int, devices: list[str]) -> list[Mean]:
        saved = self.sets.get(round)
        require(saved is not None, "I35", "round %d committed, and its set is not durable", round)
        assert saved is not None
        require(sorted(saved.entries) == devices, "I35", "%r counted, asked for %r", devices, sorted(saved.entries))
        means, noise = [], self.noise.used.get((saved.terms.run, round), {})
        for place, group in enumerate(saved.groups):
            if len(group) >= saved.terms.least and self._hostile not in group:
                total = sum(self.made[device, saved.terms.digest].astype(np.int64) for device in group)
                drawn = noise.get(place, 0)  # the helper adds it to the masks
                means.append(mean(total - drawn, saved.terms))
        return means
