"""Helper: the second party of masked rounds. Events in, actions out; no I/O.

    ask, in parts -> believed? may it be opened? -> Open, in a thread of the host's -> SaveOpened, durable -> the answer

A round of a run is opened once, for one set. So what was opened is on disk before the answer leaves, and the same set
again has the same answer, byte for byte, noise included, as long as that is kept. If the process dies before it is on
disk, nothing has left, and the round is as if it had not been asked for.

Rounds only go up. In one epoch of the aggregator's certificate there is one run, so one number is enough to know which
rounds may still be opened. The next epoch goes on with that number, or has another run, and the one before is over:
the aggregator has the vectors of all its rounds. There is work on one set at a time: an ask that comes meanwhile is
dropped, since an aggregator that has no answer asks again.
"""

from __future__ import annotations

from msgspec.structs import replace

from ..errors import ProtocolError
from ..machine import (
    Connected,
    Disconnected,
    Flow,
    Note,
    Publish,
    Received,
    Sent,
    Stop,
    Subscribe,
    Tick,
    WallClock,
    WallTime,
    assert_never,
)
from ..masking.exchange import Answer, Ask, open_ask
from ..protocol.envelope import Kind
from ..protocol.parts import DEFAULT_PART_BYTES, Splitter, fitting_part_bytes
from ..protocol.terms import Terms, digest_of
from ..protocol.topics import ROOT, Topics
from ..trust.certificate import SignerCertificate
from ..trust.roster import Roster
from . import asked
from .arriving import Arriving, Whole, most_devices
from .events import Action, Event, Find, Found, JobDone, Keys, KeysRead, Open, RosterRead, SaveOpened, SaveState
from .least import Least
from .opening import Job, Sums
from .refusal import Refusal, Refused
from .state import Opened, State


class Helper:
    """`state` is what the disk has; a new helper's is empty."""

    def __init__(self, keys: Keys, roster: Roster, least: Least, state: State, *, root: str = ROOT) -> None:
        self.keys, self.roster, self.least, self.state = keys, roster, least, state
        self.topics = Topics(keys.federation, root)
        self._clock = WallClock()
        self._arriving = Arriving(self.topics, keys.name)
        self._job: tuple[Job, Whole] | None = None  # that runs
        self._sought: tuple[Whole, bytes, bytes] | None = None  # whose kept answer is being read, with H and its set
        self._max_packet: int | None = None
        self.opened = self.refused = 0  # since the process began

    wake_at: float | None = None

    def step(self, event: Event, now: float) -> list[Action]:
        """Process one event; returns what the host has to do, in order."""
        self._clock.hear(event, now)
        match event:
            case Connected():
                self._arriving.clear()
                self._max_packet = event.max_packet_bytes
                return [Subscribe((self.topics.any_ask(self.keys.name),), 1)]
            case Received():
                return self._received(event, now)
            case JobDone():
                return self._done(event)
            case Found():
                return self._found(event)
            case RosterRead(roster):
                self.roster = roster
            case KeysRead(keys):
                return self._turn(keys)
            case Disconnected():
                self._arriving.clear()
            case Sent() | Flow() | Tick() | WallTime() | Stop():
                pass
            case _:
                assert_never(event)
        return []

    def begin(self) -> list[Action]:
        """What is due when the process begins: the keys may be of a later epoch than the state."""
        return self._turn(self.keys)

    def _turn(self, keys: Keys) -> list[Action]:
        """These keys are ours from now on."""
        self.keys = keys
        if keys.epoch <= self.state.epoch:
            return []
        self.state = self.state.in_epoch(keys.epoch)
        self._job = None  # it was sealed to keys that are gone
        return [SaveState(self.state), Note("info", f"epoch {keys.epoch} of this helper's keys has begun")]

    # An ask

    def _received(self, event: Received, now: float) -> list[Action]:
        try:
            whole = self._arriving.add(event.topic, event.payload, len(self.roster.devices))
            return [] if whole is None else self._asked(whole, now)
        except ProtocolError as error:
            return [Note("warning", str(error), "ask")]

    def _asked(self, whole: Whole, now: float) -> list[Action]:
        keys, most = self.keys, most_devices(len(self.roster.devices))
        ask, certificate = open_ask(whole.blob, keys.name, keys.root, keys.federation, most)
        learned: list[Action] = []
        try:
            asked.check_certificate(certificate, self.state, self._clock.at(now))
            terms = asked.read_terms(ask, keys.federation)
            asked.check_run(terms, self.state)
            if not ask.entries:
                return self._tell(whole, ask, terms)
            learned = self._learn(certificate, terms)
            return learned + self._judged(whole, ask, terms)
        except Refusal as refusal:
            return learned + self._refuse(whole, ask, refusal.refused)

    def _learn(self, certificate: SignerCertificate, terms: Terms) -> list[Action]:
        """A newer certificate of the aggregator's has been seen; the first run of its epoch is its only one."""
        state = self.state
        has_room = terms.run == state.run or not state.is_full  # else the epoch begins once there is room for its run
        if has_room and (certificate.epoch > state.signer_epoch or not state.run):
            state = replace(state.in_run(terms.run), signer_epoch=certificate.epoch)
        self.state, before = replace(state, serial=certificate.serial), self.state
        return [SaveState(self.state)] if self.state != before else []

    def _judged(self, whole: Whole, ask: Ask, terms: Terms) -> list[Action]:
        """What becomes of an ask that the aggregator has signed; Refusal."""
        set_digest = ask.set_digest
        if self._job is not None or self._sought is not None:
            return [_busy(terms)]
        kept = self.state.of_round(terms.round) if terms.run == self.state.run else None
        if kept is not None:
            if kept != Opened.of(terms.round, terms.digest, set_digest):
                raise Refusal("second", f"round {terms.round} was opened for another set or other terms")
            self._sought = whole, terms.digest, set_digest
            return [Find(terms.round)]
        asked.check_keys(terms, self.keys)  # first: what was seen of us under other keys says nothing of these
        try:
            asked.check_round(terms, ask, self.state, self.keys)
        except Refusal as refusal:
            if refusal.refused.code == "restored" and not self.state.restored:
                self.state = replace(self.state, restored=True)
                return [SaveState(self.state), *self._refuse(whole, ask, refusal.refused)]
            raise
        asked.check_terms(terms, self.least)
        job = asked.job_of(terms, ask, self.roster, self.keys, self.least, ledger=self.state.ledger)
        self._job = job, whole
        count = len(ask.entries)
        return [Note("info", f"asked for the sum of {count} masks", round=terms.round), Open(job)]

    # An answer

    def _tell(self, whole: Whole, ask: Ask, terms: Terms) -> list[Action]:
        """What we know, to an aggregator that has not opened a round yet: nothing changes by that. Refusal."""
        if self._job is not None or self._sought is not None:
            return [_busy(terms)]  # what is being opened would be missing
        asked.check_keys(terms, self.keys)
        newest, epsilon = self.state.newest_of(terms.run), self.state.epsilon
        text = f"round {newest} is the newest of this run that was opened, and epsilon {epsilon:g} is spent"
        answer = Answer(
            terms.digest, ask.set_digest, newest, epsilon, reason=f"known: {text}", roster=self.roster.serial
        )
        note = Note("info", f"asked what is known: {text}", "known", terms.round)
        return [note, *self._publish(whole, answer.to_bytes(self.keys.name, self.keys.signing))]

    def _done(self, event: JobDone) -> list[Action]:
        if self._job is None or self._job[0] is not event.job:
            return []  # of an epoch that has ended
        (job, whole), self._job = self._job, None
        terms = job.terms
        if isinstance(event.result, Refused):
            return self._refused(whole, terms.digest, job.set_digest, event.result, job.roster)
        return self._open(job, whole, event.result)

    def _open(self, job: Job, whole: Whole, sums: Sums) -> list[Action]:
        terms = job.terms
        self.state = self.state.after(Opened.of(terms.round, terms.digest, job.set_digest), sums.ledger)
        answer = Answer(
            terms.digest, job.set_digest, terms.round, self.state.epsilon, sums.groups, unopened=sums.unopened,
            roster=job.roster,
        )  # fmt: skip
        blob = answer.to_bytes(self.keys.name, self.keys.signing)
        self.opened += 1
        count = sum(group[0] for group in sums.groups if group is not None)
        note = Note("info", f"opened the sum of {count} devices, epsilon {self.state.epsilon:g}", round=terms.round)
        out: list[Action] = [SaveOpened(self.state, blob, sums.memory), note]
        if sums.fault:
            out.append(Note("warning", f"not all groups are opened: {sums.fault}", round=terms.round))
        return [*out, *self._publish(whole, blob)]

    def _found(self, event: Found) -> list[Action]:
        """The answer that was given before, for the same set."""
        if self._sought is None:
            return []
        (whole, digest, set_digest), self._sought = self._sought, None
        if event.answer is None:
            text = f"round {event.round} was opened, and its answer can't be read any more"
            return self._refused(whole, digest, set_digest, Refused("lost", text), self.roster.serial)
        note = Note("info", "the same set again: the same answer", round=event.round)
        return [note, *self._publish(whole, event.answer)]

    def _refuse(self, whole: Whole, ask: Ask, why: Refused) -> list[Action]:
        return self._refused(whole, digest_of(ask.terms.encode()), ask.set_digest, why, self.roster.serial)

    def _refused(self, whole: Whole, digest: bytes, set_digest: bytes, why: Refused, roster: int) -> list[Action]:
        """Tell the log and the aggregator why nothing is opened, by the roster of this serial."""
        self.refused += 1
        text = f"{why.code}: {why.text}"
        state = self.state
        answer = Answer(
            digest, set_digest, state.round, state.epsilon, reason=text, unopened=why.unopened,
            roster=roster,
        )  # fmt: skip
        note = Note("warning", f"round {whole.round} refused: {text}", f"refused {why.code}", whole.round)
        return [note, *self._publish(whole, answer.to_bytes(self.keys.name, self.keys.signing))]

    def _publish(self, whole: Whole, blob: bytes) -> list[Action]:
        size = fitting_part_bytes(DEFAULT_PART_BYTES, len(blob), self._max_packet)
        splitter = Splitter(
            blob, size, kind=Kind.ANSWER, codec=0, federation=whole.hash, round=whole.round, version=whole.version
        )  # fmt: skip
        topics = (self.topics.answer(self.keys.name, part) for part in range(splitter.parts))
        return [Publish(topic, splitter.part(part)) for part, topic in enumerate(topics)]


def _busy(terms: Terms) -> Note:
    return Note("info", "an ask came while another is being answered: it comes again", "busy", terms.round)
