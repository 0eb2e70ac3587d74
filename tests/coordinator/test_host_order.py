"""A host carries out all actions of an event before it brings the machine the answer to one of them.

A clear that was decided before an evaluation must not reach the broker after the payload that the commit put there.
"""

from __future__ import annotations

from machines import PARAMS, TOPICS, make_coordinator, make_manifest, make_update, status, update_parts

from edgefl.coordinator.events import Commit, Evaluate, Evaluated, LateUpdate, ReloadedLate, ReloadLate, SaveAttempt
from edgefl.hosting.host import Host
from edgefl.machine import Connected, Disconnected, Event, Note, Publish, Received, Sent, Subscribe, Unsubscribe
from edgefl.protocol.messages import RETAINED_LIMIT, decode
from edgefl.protocol.round import Round


class Live(Host):
    """A coordinator on a broker that keeps `retained` messages and, while `acknowledges` is set, answers."""

    def __init__(self, machine, late=()):
        self.machine, self.late = machine, list(late)
        self.at = 0.0
        self.acknowledges = True
        self.retained: dict[str, bytes] = {}
        self._words: list[Event] = []

    def now(self):
        return self.at

    def events(self, *events):
        for event in events:
            self.feed(event)
            while self._words:
                self.feed(self._words.pop(0))

    def carry_out(self, action):
        match action:
            case Evaluate():
                self.feed(Evaluated())
            case ReloadLate():
                self.feed(ReloadedLate(self.late))
            case Publish() | Subscribe() | Unsubscribe() | Note():
                self.carry_out_shared(action)
            case Commit():
                self.late = [update for update in self.late if (update.device, update.round) not in action.drop]
            case _:
                assert isinstance(action, SaveAttempt)

    def publish(self, action):
        if action.token is not None and self.acknowledges:
            self._words.append(Sent(action.token, True))
        if action.topic == TOPICS.aggregator:
            self._words.append(Received(action.topic, action.payload))
        elif action.payload:
            self.retained[action.topic] = action.payload
        else:
            self.retained.pop(action.topic, None)

    def subscribe(self, action): ...

    unsubscribe = note = subscribe

    def assert_whole(self, version):
        """The model that the announced round names lies on the broker."""
        announced = decode(Round, self.retained[TOPICS.round], RETAINED_LIMIT)
        assert announced.version == version
        for frame in announced.frames:
            for length, slot in ((frame.keyframe, frame.keyframe_slot), (frame.delta, frame.delta_slot)):
                wanted = {TOPICS.model(slot, part) for part in range(-(-length // 256))}
                assert wanted <= set(self.retained), f"version {frame.version}"


def test_a_round_whose_deadline_passed_off_line_leaves_the_next_model_whole():
    host = Live(make_coordinator(min_reports=1))
    host.events(status("a"), status("b"), Connected())
    host.acknowledges = False
    for version in range(3):
        host.events(*update_parts("a", round=version + 1, version=version))
        host.events(*update_parts("b", round=version + 1, version=version))
    host.events(*update_parts("a", round=4, version=3), Disconnected())
    host.at = 1000.0
    host.events(Connected())
    host.assert_whole(4)


def test_saved_late_updates_that_reach_the_goal_at_once_leave_the_next_model_whole():
    late = [LateUpdate(device, 6, 5, 1, make_update(0.1)) for device in "ab"]
    options = {"mode": "async", "goal": 2, "min_reports": 1, "late_rounds": 3}
    start = {"round": 7, "version": 5, "attempt": 3}
    host = Live(make_coordinator(params=PARAMS, manifest=make_manifest(), start=start, **options), late)
    host.events(status("a"), Connected())
    host.assert_whole(6)
