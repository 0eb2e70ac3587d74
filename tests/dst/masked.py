"""Masked rounds in the simulation: schedules, a helper and its disk, and what only the simulation knows of the sums.

A device's integers follow from its name and the terms alone, so the simulation knows what each sum has to be; its seeds
are fresh in every training. The helper may die between any two actions, and its disk fails as all disks do. In some
schedules one device seals nonsense.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgefl.coordinator.masked_terms import MaskedTerms
from edgefl.coordinator.saved_ask import SavedAsk
from edgefl.device.events import TrainJob
from edgefl.device.masked import terms_of
from edgefl.device.policy import OPEN, OwnersWord
from edgefl.errors import StoreError
from edgefl.helper import events as helper_events
from edgefl.helper.events import Find, Found, JobDone, Keys, RosterRead, SaveOpened, SaveState
from edgefl.helper.events import Open as OpenJob
from edgefl.helper.helper import Helper
from edgefl.helper.least import Least
from edgefl.helper.state import State
from edgefl.history_record import RoundRecord
from edgefl.machine import Publish
from edgefl.masking import sealed
from edgefl.masking.profile import tell
from edgefl.masking.update import _AT_BOXES, mask
from edgefl.masking.vector import Mean, mean, quantize
from edgefl.privacy.clipping import ClipState
from edgefl.protocol.envelope import Envelope
from edgefl.protocol.statistics import Statistics
from edgefl.protocol.terms import Party, Terms
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import PrivacySettings, RoundSettings
from edgefl.simulation.task import Drawn
from edgefl.trust.ed25519 import SigningKey, to_text
from edgefl.trust.helper_certificate import HelperCertificate
from edgefl.trust.roster import Roster

from .disks import FailingDisk, PowerLost
from .host import Host
from .keys import ROOT, aggregators_keys
from .schedule import FEDERATION, Schedule
from .violation import require

if TYPE_CHECKING:
    from .world import World

HELPER = "north"
HELPER_S = 40.0
LEAST = 2
OWNER = OwnersWord(replace(OPEN, masked=True, least_devices=LEAST, helpers=frozenset({HELPER})))


def draw(seed: int) -> Schedule:
    """A schedule whose rounds are masked; its other numbers are those of a schedule with keys."""
    found = Schedule.draw(3 * seed + 1)
    rounds, devices = found.config, len(found.devices)
    rounds = msgspec.structs.replace(
        rounds, mode="sync", late="drop", evaluate_every=None, min_reports=max(LEAST, rounds.min_reports),
        goal=rounds.goal if rounds.mode == "sync" else None,
        over_select=rounds.over_select if rounds.mode == "sync" else None, expect=rounds.expect or devices,
    )  # fmt: skip
    manifest = msgspec.structs.replace(
        found.manifest, codec="raw32", codec_options={}, forms=[], error_feedback=False, downlink="raw32",
        downlink_options={}, span=1, local=None,
    )  # fmt: skip
    left_out = _left_out(seed, found, rounds)
    hostile, unlisted = (left_out if seed % 3 == kind else "" for kind in (1, 2))
    return replace(found, manifest=manifest, config=rounds, masked=True, hostile=hostile, unlisted=unlisted)


def _left_out(seed: int, schedule: Schedule, rounds: RoundSettings) -> str:
    """A device that helpers may leave out: the others that have no handicap are enough for a round; "" is none."""
    healthy = [device for device in schedule.devices if device not in schedule.lasting.handicaps]
    enough = len(healthy) > max(rounds.min_reports, LEAST)
    return healthy[seed % len(healthy)] if enough else ""


def privacy_of(schedule: Schedule) -> PrivacySettings:
    groups = 2 if schedule.seed % 4 == 0 and len(schedule.devices) >= 2 * LEAST else 1
    transform = "hadamard" if schedule.seed % 2 else "subset"
    return PrivacySettings(
        masked=True, helpers=HELPER, helper_s=HELPER_S, least=LEAST, share=0.5, bits=12, transform=transform,
        groups=groups, clip_quantile=0.5 if schedule.seed % 5 == 1 else None,
    )  # fmt: skip


def helper_keys() -> Keys:
    seed = hashlib.sha256(b"helper of the simulation").digest()
    box = sealed.new_box_key(seed)
    return Keys(HELPER, FEDERATION, 1, ROOT.public, *box, SigningKey(seed))


def masked_terms(schedule: Schedule, moved: ClipState | None = None) -> MaskedTerms | None:
    """What the aggregator makes terms with."""
    if not schedule.masked:
        return None
    keys = helper_keys()
    box, key = keys.box_public, keys.signing.public
    certificate = HelperCertificate.of(
        HELPER, box, key, federation=FEDERATION, serial=1, epoch=1, not_before=0, not_after=2**40
    ).seal(ROOT)
    return MaskedTerms(
        privacy_of(schedule), schedule.manifest, most=len(schedule.devices), rounds=0,
        helpers=[Party(HELPER, 1, to_text(box), to_text(key))], certificates=[certificate.decode()],
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
    job: TrainJob, device: str, told: Statistics, examples: int, salt: object, *, nonsense: bool = False
) -> tuple[bytes, np.ndarray, bytes]:
    """As `answer`, of what the device tells of its columns."""
    terms = terms_of(job.round, job.manifest)
    q = tell(told, examples, terms)
    return UpdateHeader.masked(profile=True).to_bytes() + _sealed(q, terms, device, salt, nonsense), q, terms.digest


def _sealed(q: np.ndarray, terms: Terms, device: str, salt: object, nonsense: bool) -> bytes:
    payload = mask(q, terms, device, None, Drawn(f"{device} {salt}"))
    if nonsense:
        begins, ends = _AT_BOXES + 2, len(payload) - terms.packed_bytes
        payload = payload[:begins] + Drawn(f"nonsense {salt}")(ends - begins) + payload[ends:]
    return payload


class MaskedTruth:
    """`made` has the integers of every update, by device and H; `sets` the set that each round was asked for. Those of
    the `hostile` device are in no sum. `clip` is that of the next round, by the records that are durable."""

    def __init__(self, schedule: Schedule) -> None:
        self._hostile = schedule.hostile
        self._clipping = privacy_of(schedule).clipping
        self.clip = self._clipping.first
        self.made: dict[tuple[str, bytes], np.ndarray] = {}
        self.sets: dict[int, SavedAsk] = {}
        self.opened: dict[int, bytes] = {}  # round -> digest of the set that left the helper

    def asked(self, saved: SavedAsk) -> None:
        """It is durable, and about to be shown to the helper."""
        known = self.sets.setdefault(saved.record.round, saved)
        same = known.ask().set_digest == saved.ask().set_digest
        anew = saved.record.base > known.record.base  # a damaged model was replaced: the helper refuses what is asked
        opened = saved.record.round in self.opened
        require(same or anew or not opened, "I35", "another set of round %d", saved.record.round)
        self.sets[saved.record.round] = saved

    def answered(self, round: int, set_digest: bytes) -> None:
        """I34: a round is opened for one set."""
        known = self.opened.setdefault(round, set_digest)
        require(known == set_digest, "I34", "round %d was opened for two sets", round)

    def mean(self, round: int, devices: list[str]) -> np.ndarray:
        """I35: what the sum of these devices' integers says, group by group: (P,) the median of the groups' means."""
        means = [each.delta for each in self._means(round, devices)]
        return means[0] if len(means) == 1 else np.median(means, axis=0).astype(np.float32)

    def over(self, record: RoundRecord) -> None:
        """I35: an adaptive clip follows from the records before, and from the votes of the devices that counted."""
        if self._clipping.quantile is None or record.state == "rollback" or record.profile:
            require(record.clip is record.within is None, "I35", "a clip in %r", record)
            return
        require(record.clip == self.clip, "I35", "clip %r of round %d, not %r", record.clip, record.round, self.clip)
        if record.state == "committed":
            votes = float(np.median([each.within for each in self._means(record.round, record.devices)]))
            require(record.within == votes, "I35", "%r were within the clip, not %r", record.within, votes)
        self.clip = self._clipping.after(self.clip, record.within)

    def _means(self, round: int, devices: list[str]) -> list[Mean]:
        saved = self.sets.get(round)
        require(saved is not None, "I35", "round %d committed, and its set is not durable", round)
        assert saved is not None
        require(sorted(saved.entries) == devices, "I35", "%r counted, asked for %r", devices, sorted(saved.entries))
        means = []
        for group in saved.groups:
            if len(group) >= saved.terms.least and self._hostile not in group:
                total = sum(self.made[device, saved.terms.digest].astype(np.int64) for device in group)
                means.append(mean(total, saved.terms))
        return means


class HelperDisk(FailingDisk):
    """As edgefl_broker.helper's store."""

    def __init__(self) -> None:
        self.state = State()
        self.answers: dict[int, bytes] = {}
        self.starts = 0
        self.roster = 1  # the serial of the one in its folder of keys

    def save(self, state: State, answer: bytes | None = None) -> None:
        def write() -> None:
            self.state = state
            answers: Mapping[int, bytes] = self.answers if answer is None else {**self.answers, state.round: answer}
            kept = {opened.round for opened in state.opened}
            self.answers = {round: blob for round, blob in answers.items() if round in kept}

        self.transact(write)


class HelperHost(Host[helper_events.Event, helper_events.Action]):
    """A helper."""

    machine: Helper

    def __init__(self, world: World) -> None:
        super().__init__(world, f"helper-{HELPER}")
        self.disk = HelperDisk()
        if world.schedule.unlisted:
            world.clock.at(world.schedule.heal_at * (5 + world.schedule.seed % 4) / 8, self._replace_roster)

    def _replace_roster(self) -> None:
        """The operator has brought the newest one."""
        self.disk.roster = 2
        if self.alive:
            self.feed(RosterRead(self._roster()))

    def _roster(self) -> Roster:
        keys, unlisted = aggregators_keys(self.world.schedule), self.world.schedule.unlisted
        assert keys is not None
        devices = {name: member for name, member in keys[1].devices.items() if self.disk.roster > 1 or name != unlisted}
        return msgspec.structs.replace(keys[1], serial=self.disk.roster, devices=devices)

    def boot_up(self) -> None:
        self.disk.starts += 1
        self.machine = Helper(helper_keys(), self._roster(), Least(devices=LEAST), self.disk.state)
        try:
            for action in self.machine.begin():
                self.carry_out(action)
        except (PowerLost, StoreError) as error:
            self.die(f"its first write fails: {error!r}")

    def act(self, action: helper_events.Action) -> None:
        match action:
            case OpenJob(job):
                starts, result = self.starts, job.run(no_noise)
                self.clock.after(
                    self.world.rng.uniform(0, 3),
                    lambda: self.feed(JobDone(job, result)) if starts == self.starts else None,
                )
            case SaveOpened(state, answer):
                self.disk.save(state, answer)
            case SaveState(state):
                self.disk.save(state)
            case Find(round):
                self.answer(Found(round, self.disk.answers.get(round)))
            case _:
                self.carry_out_shared(action)

    def publish(self, action: Publish) -> None:
        """I34: what leaves is durable, and of one set a round."""
        envelope = Envelope.from_bytes(action.payload)
        blob, answers = envelope.data, self.disk.answers
        found = [opened for opened in self.disk.state.opened if blob in answers.get(opened.round, b"")]
        found = [opened for opened in found if envelope.parts > 1 or answers[opened.round] == blob]
        reason_bytes = int.from_bytes(blob[85:87], "little")  # exchange.Answer: 1 + 32 + 32 + 4 + 8 + 8
        require(bool(found) or reason_bytes > 0, "I34", "an answer that is not durable")
        for opened in found:
            self.world.checker.masked.answered(opened.round, bytes.fromhex(opened.set_digest))
        self.world.adversary.hear(action.topic, action.payload)
        connection = self.connection
        if connection is not None:
            self.world.broker.publish(connection, action.topic, action.payload, action.retain, None)


def no_noise(terms: object, purpose: bytes) -> object:
    raise AssertionError("no schedule has noise")
