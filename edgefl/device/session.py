"""DeviceSession: what a device does, decided without any I/O.

    manifest + round -> fetch the model's parts -> train -> save the update -> report it -> wait for the next round
                                                   (or evaluate)

Promises kept here: a round is trained once (the saved update is sent again, not made again); an update is kept
until its round is over, because a PUBACK proves no delivery; messages of another round, federation, model or plan are
dropped; a device trains only while its owner lets it (`Pause`).

All that it knows is in state.py. What messages mean is in listening.py.
"""

from __future__ import annotations

from ..machine import (
    Connected,
    Disconnected,
    Flow,
    Note,
    Received,
    Sent,
    Stop,
    Subscribe,
    Tick,
    WallTime,
    assert_never,
)
from ..protocol.trouble import Trouble
from .events import Action, Approved, DataStamp, Event, Failed, Noticed, NotKept, Pause, Trained, Unable
from .listening import Listening


class DeviceSession(Listening):
    """One device in one federation: events in, actions out."""

    def step(self, event: Event, now: float) -> list[Action]:
        """Process one event; returns what the host has to do, in order.

        After Stop only acknowledgements count, for what is still being sent: a round that arrives then would make this
        device publish that it is present.
        """
        self.clock.hear(event, now)
        self.allowance.hear(event, now)
        if not self._stopped or isinstance(event, Sent):
            self._process(event, now)
        if not (self._stopped or self.status.sits_out) and (refusal := self.allowance.spent(now)) is not None:
            self._part.sit_out(refusal, now)
        if not (self._stopped or self.status.sits_out):
            self._part.close(now)
            self._part.deliver(now)
        out, self._part.out = self._part.out, []
        return self.allowance.charge(out, online=self._part.online, last=isinstance(event, Stop))

    def heard(self, num_bytes: int) -> None:
        """So many bytes have arrived, in messages which say nothing that matters to this device."""
        self._reporting.receive(num_bytes)

    def _process(self, event: Event, now: float) -> None:
        match event:
            case Received():
                self._on_message(event, now)
            case Connected():
                self._on_connected(event, now)
            case Disconnected():
                self._part.on_disconnected()
            case Sent():
                self._part.on_sent(event, now)
            case Flow():
                self._patience.flow = event
            case Tick() | WallTime():
                self._part.on_tick(now)
            case Trained() | Failed():
                self._part.on_result(event, now)
            case Pause() | Unable() | DataStamp() | Approved() | Noticed() | NotKept():
                self._on_host(event, now)
            case Stop():
                self._stopped = True
                self._part.stop_training()
                self._part.publish_status("disconnected")
            case _:
                assert_never(event)

    def _on_host(self, event: Pause | Unable | DataStamp | Approved | Noticed | NotKept, now: float) -> None:
        """The owner pauses or resumes the device, or approves a plan; the host can't train or can again, or has
        something to tell; or the data have changed."""
        if isinstance(event, NotKept):
            self._part.delivery.not_kept(now)
            self.status.warn(Trouble("disk", event.reason), now)
            self._part.publish_status()
            return
        if isinstance(event, Noticed):
            self.status.notice = Trouble(event.code, event.reason) if event.reason else None
            self._part.publish_status()
            return
        if isinstance(event, Approved):
            self._on_approved(event, now)
            return
        if isinstance(event, DataStamp):
            was_fresh, self._saved.stamp = self._saved.is_fresh, event.stamp
            if self._saved.is_fresh == was_fresh:
                return
        elif isinstance(event, Pause):
            self.status.paused = Trouble(event.code, event.reason) if event.reason else None
        else:
            self.status.unable = Trouble(event.code, event.reason) if event.reason else None
            if event.num_examples is not None:
                self.status.num_examples = event.num_examples
            self._part.out.append(Note("error", event.reason) if event.reason else Note("info", "it can train again"))
        if self.status.hindered:
            self._part.stop_training()
        else:
            self._part.consider(now)
        self._part.publish_status()

    def _on_connected(self, event: Connected, now: float) -> None:
        self._part.online, self._part.link = True, event
        self.status.connected(event.boot)
        self._part.out.append(Subscribe((self.topics.manifest, self.topics.round, self.topics.inbox(self.device))))
        self._part.on_connected(now)
