"""Jury: canary devices judge a candidate before it is committed, each on the examples that it holds out. No I/O.

    candidate on the broker, named by no round -> Judge to each canary's inbox -> their Verdicts -> the median decides

Each canary compares the candidate with the newest model on its own examples: it is asked for the newest model's scores
too, unless it has judged that model before. The median of what canaries lose decides, so one that lies moves little:
of accuracy if most of them tell it, else of loss. Fewer than `quorum` verdicts at the deadline refuse the candidate,
also where no canary is there at all: a gate that nobody keeps is shut, and rounds go on with the model as it is.

A verdict names the attempt and the SHA-256 of what it judges. So one about a candidate of an earlier attempt, or about
a refused one that had the same version number, is of no use. Part of RoundCoordinator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

from ...machine import Publish
from ...protocol.inbox import Judge, Verdict
from ...protocol.messages import encode
from ...protocol.round import Round
from ...protocol.topics import Topics
from ...settings import GateSettings
from .gate import drop, rise

LEAST_WAIT_S = 5.0  # for other canaries, once there is a quorum
ASK_EVERY_S = 10.0  # a canary that has not answered is asked again


class Jury:
    """`is_canary` says of an enrolled device whether it judges; those that the settings name do too."""

    def __init__(self, settings: GateSettings, topics: Topics, is_canary: Callable[[str], bool]) -> None:
        self._settings, self._topics, self._is_canary = settings, topics, is_canary
        self._names = settings.canary_names
        self._known: dict[str, Verdict] = {}  # of the newest model, by canary
        self._given: dict[str, Verdict] = {}  # of the candidate
        self._asked_at: dict[str, float] = {}
        self._newest: Round | None = None
        self._candidate: Round | None = None
        self._began_at = self.closes_at = 0.0

    def reconfigure(self, settings: GateSettings) -> None:
        """Other settings, while no model is judged."""
        self._settings, self._names = settings, settings.canary_names

    @property
    def wake_at(self) -> float:
        """When a Tick is wanted, while it judges."""
        return min([self.closes_at, *(at + ASK_EVERY_S for at in self._asked_at.values())])

    def begin(self, newest: Round, candidate: Round, now: float) -> None:
        """Judge `candidate` against `newest`, which are rounds that only evaluate; or ask again for the same."""
        if self._newest is None or newest.model_sha256 != self._newest.model_sha256:
            self._known = {}
        before, self._candidate = self._candidate, candidate
        self._newest, self._asked_at = newest, {}
        if before is None or (before.model_sha256, before.attempt) != (candidate.model_sha256, candidate.attempt):
            self._given, self._began_at, self.closes_at = {}, now, now + self._settings.canary_deadline_s

    def end(self, committed: bool) -> None:
        """The candidate has become the newest model, or was refused."""
        if committed:
            self._newest, self._known = self._candidate, self._given
        self._candidate = None

    def _canaries(self, present: Iterable[str]) -> list[str]:
        return [device for device in present if device in self._names or self._is_canary(device)]

    def ask(self, present: Iterable[str], now: float) -> list[Publish]:
        """Requests to the canaries that are due; only devices that are `present` are asked."""
        out = []
        for device in self._canaries(present):
            asked_at = self._asked_at.get(device)
            if device in self._given or (asked_at is not None and now < asked_at + ASK_EVERY_S):
                continue
            wanted = self._candidate if device in self._known else self._newest
            assert wanted is not None
            self._asked_at[device] = now
            out.append(Publish(self._topics.inbox(device), encode(Judge(wanted))))
        return out

    def hear(self, device: str, verdict: Verdict, now: float) -> None:
        """A verdict has come; one that is not asked for changes nothing. Once the quorum is there, the other canaries
        have twice as long as that took: one that hangs does not make each round last until the deadline."""
        before = len(self._judged)
        for asked, found in ((self._newest, self._known), (self._candidate, self._given)):
            mine = self._canaries([device]) and asked is not None
            if mine and asked and (verdict.attempt, verdict.model) == (asked.attempt, asked.model_sha256):
                found.setdefault(device, verdict)
                self._asked_at.pop(device, None)
        if before < self._settings.quorum <= len(self._judged):
            self.closes_at = min(self.closes_at, now + max(LEAST_WAIT_S, 2 * (now - self._began_at)))

    def is_done(self, present: Iterable[str]) -> bool:
        """Whether the quorum is there, and no canary's verdict is missing any more."""
        lacks = [device for device in self._canaries(present) if device not in self._given]
        return not lacks and len(self._judged) >= self._settings.quorum

    @property
    def _judged(self) -> list[tuple[Verdict, Verdict]]:
        """Of each canary that still is one, its verdicts on the newest model and on the candidate."""
        voices = [device for device in self._canaries(self._given) if device in self._known]
        pairs = [(self._known[device], self._given[device]) for device in voices]
        return [(known, given) for known, given in pairs if known.loss is not None]

    def refuses(self) -> str:
        """Why the candidate may not be committed; "" if it may."""
        judged, settings = self._judged, self._settings
        if len(judged) < settings.quorum:
            return f"{len(judged)} canaries have judged it in {settings.canary_deadline_s:g} s, of {settings.quorum}"
        scored = [pair for pair in judged if None not in (pair[0].accuracy, pair[1].accuracy)]
        if 2 * len(scored) > len(judged):
            lost = median(drop(known, given) for known, given in scored)
            if lost > settings.max_accuracy_drop:
                return f"its accuracy on {len(scored)} canaries is {lost:.4g} lower than before, in the median"
            return ""
        lost = median(rise(known, given) for known, given in judged)
        if lost > settings.max_loss_rise:
            return f"its loss on {len(judged)} canaries is {lost:.4g} times higher than before, in the median"
        return ""
