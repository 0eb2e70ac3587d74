"""One masked round of twelve devices, in which some drop out and some parties are restarted, played by hand.

A device drops out at a stage; messages come in an order that is drawn, some of them twice. `Played` has what the
round has to be, from stages and order alone, and what it was.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache

from machines import TOPICS, commit_of, feed, of, status
from masked_rounds import PRIVACY, asked, expected, make_helper, make_masked, masked_parts, no_noise, round_in

from edgefl.coordinator.events import Commit, SaveAsk
from edgefl.coordinator.masked.saved_ask import SavedAsk
from edgefl.core.params import params_to_bytes
from edgefl.helper.events import Find, Found, JobDone, Open, SaveOpened, SaveState
from edgefl.helper.state import State
from edgefl.machine import Connected, Publish, Received, Tick
from edgefl.protocol.terms import Terms

# When a device drops out: with the round's work, and nothing sent; amid its update; after it, before the close; while
# its sum is opened; or never. The last three are in the sum.
STAGES = ("silent", "amid", "sent", "asked", "never")
# Which process dies, and when. The aggregator: in the open round; with its set on disk, before a helper hears it; once
# the helper has answered, and the answer is lost. The helper: with half of an ask; with its answer on disk, before that
# leaves. All devices: each amid its first update, which is lost, and again after its second, which it makes anew.
RESTARTS = ("none", "open", "saved", "answered", "half asked", "opened", "devices", "all")


@cache
def parts_of(terms_text: str, device: str, training: int) -> list[Received]:
    """A device's update as it comes; each `training` has masks of its own, of the same integers."""
    return masked_parts(Terms.read(terms_text), device)


class Round:
    """`commit` is what the aggregator made durable in the end; `counted` the devices that have to be in it."""

    def __init__(self, stages: Mapping[str, str], restart: str, rng: random.Random) -> None:
        self.stages, self._rng = stages, rng
        self._die = set(RESTARTS) if restart == "all" else {restart}
        self._attempt, self._now = 0, 0.0
        self._lost: set[str] = set()
        self.saved: list[SavedAsk] = []
        self.commit: Commit | None = None
        self._disk, self._kept = State(), {}
        self.helper = make_helper()
        self.answers: set[bytes] = set()
        self._start()
        if "open" in self._die:
            script = self._script()
            self._hear(script[: rng.randrange(len(script) + 1)])
            if self.coordinator.phase == "open":  # else it was closed before
                self._start()
        self._hear(self._script())
        self.counted = sorted(d for d, stage in stages.items() if stage in STAGES[2:] and d not in self._lost_early)

    def run(self) -> None:
        while self.commit is None and self.coordinator.phase == "open":
            self._tick()
        if self.coordinator.phase != "unmasking":
            return  # abandoned; or the round is to open anew, and there are too few devices for it
        if "saved" in self._die:
            self._start()
        self._feed(*(status(device, "lost") for device, stage in self.stages.items() if stage == "asked"))
        for fault in ("half asked", "opened", "answered"):
            if fault in self._die:
                self._die_at(fault)
        self._answer(self._heard(self._asks))
        assert self.commit is not None, "an answer that came whole"

    # The aggregator

    def _start(self) -> None:
        """Another process, on the same disk."""
        self._attempt += 1
        start = {"attempt": self._attempt}
        if self.saved:
            start["asked"] = SavedAsk.from_bytes(self.saved[-1].to_bytes())
        self.coordinator = make_masked(start=start)
        self._lost_early = set(self._lost)
        self._asks: list[Received] = []
        there = [status(device, "lost" if device in self._lost else "ready") for device in self.stages]
        out = self._feed(*there, Connected())
        if not self.saved and any(isinstance(a, Publish) and a.topic == TOPICS.round for a in out):
            self.terms = Terms.read(round_in(out).terms)

    def _feed(self, *events) -> list:
        out = feed(self.coordinator, *events, now=self._now)
        self.saved += [action.saved for action in of(out, SaveAsk)]
        if asks := asked(out):
            assert self.saved, "the set is durable before a helper is asked"
            self._asks = asks
        found = next((at for at, action in enumerate(out) if isinstance(action, Commit)), None)
        if found is not None and self.commit is None:
            self.commit = commit_of(out[: found + 1])
        return out

    def _tick(self) -> None:
        assert self.coordinator.wake_at is not None
        self._now = max(self._now, self.coordinator.wake_at)
        self._feed(Tick())

    # The devices

    def _script(self) -> list[tuple[str, Received]]:
        """What all devices send that are still there, in an order that is drawn; of one device first things first."""
        queues = {device: self._sends(device) for device in self.stages if device not in self._lost}
        turns = [device for device, queue in queues.items() for _ in queue]
        self._rng.shuffle(turns)
        return [(device, queues[device].pop(0)) for device in turns]

    def _sends(self, device: str) -> list[Received]:
        stage, rng = self.stages[device], self._rng
        first, second = (parts_of(self.terms.text, device, training) for training in (1, 2))
        out: list[Received] = []
        if stage != "silent" and "devices" in self._die:
            out += [*rng.sample(second, rng.randrange(1, len(second))), status(device, boot=2)]
        if stage == "amid":
            some = rng.sample(first, rng.randrange(1, len(first)))
            out += [*some, rng.choice(some)]
        elif stage != "silent":
            out += [*rng.sample(first, len(first)), rng.choice(first)]
            if "devices" in self._die:
                out += rng.sample(second, len(second))
        return [*out, status(device, "lost", boot=2)] if stage in STAGES[:3] else out

    def _hear(self, script: list[tuple[str, Received]]) -> None:
        for device, message in script:
            self._feed(message)
            if message == status(device, "lost", boot=2):
                self._lost.add(device)

    # The helper

    def _heard(self, asks: list[Received], *, dies: bool = False) -> list[Received]:
        """What the helper answers; it may die when its answer is on its disk."""
        out, waiting = [], list(asks)
        while waiting:
            for action in self.helper.step(waiting.pop(0), self._now):
                match action:
                    case Open(job):
                        waiting.append(JobDone(job, job.run(no_noise)))
                    case SaveOpened(state, blob):
                        self._disk, self._kept[state.round] = State.from_bytes(state.to_bytes()), blob
                        if dies:
                            return []
                    case SaveState(state):
                        self._disk = State.from_bytes(state.to_bytes())
                    case Find(round):
                        waiting.append(Found(round, self._kept.get(round)))
                    case Publish(topic, payload):
                        out.append(Received(topic, payload))
        self.answers |= {message.payload for message in out}
        return out

    def _die_at(self, fault: str) -> None:
        asks = self._rng.sample(self._asks, len(self._asks))
        if fault == "answered":
            self._heard(asks)
            self._start()
            return
        if fault == "half asked":
            self._heard(asks[: len(asks) // 2])
        else:
            self._heard(asks, dies=True)
        self.helper = make_helper(state=self._disk)
        self._asks = []
        while not self._asks:
            self._tick()

    def _answer(self, answers: list[Received]) -> None:
        for _ in range(2):
            for answer in self._rng.sample(answers, len(answers)):
                self._feed(answer)


def check(stages: Mapping[str, str], restart: str, rng: random.Random) -> None:
    """The round's model is that of the plain sum of the devices that have to be in it. If those are too few, there is
    no model, and nothing was opened. The helper never opens two sets."""
    played = Round(stages, restart, rng)
    played.run()
    commit, counted = played.commit, played.counted
    if len(counted) < PRIVACY.least:
        assert commit is None or (commit.params, commit.record.state) == (None, "abandoned")
        assert (played.saved, played.answers) == ([], set())
        return
    assert commit is not None and commit.record.devices == counted
    assert params_to_bytes(commit.params) == expected(played.terms, counted)
    assert len(played.saved) == 1 and len(played.answers) == 1
