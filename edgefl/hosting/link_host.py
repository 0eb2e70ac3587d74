"""LinkHost: one state machine on one MQTT link, in real time. The loop that agent and aggregator share.

Design:
  a) One thread runs the machine; the link's thread, workers and signal handlers only `post` events.
  b) Actions are carried out in their order; what a daemon adds (disk, training, evaluation) is in `carry_out`.
  c) A message is acknowledged after its actions are done: after a crash in between, the broker sends it again. A few
     messages are processed, acknowledged and answered together.
  d) The link has at most WINDOW messages to send; the others wait here until the broker acknowledges.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque

from ..errors import TransportError
from ..machine import (
    A,
    Connected,
    Disconnected,
    E,
    Event,
    Flow,
    Note,
    Publish,
    Received,
    Sent,
    Stop,
    Subscribe,
    Tick,
    Unsubscribe,
)
from ..transports.mqtt import Down, LinkEvent, Message, MqttLink, Published, Refused, Up
from .host import Host
from .notify import systemd
from .refusals import Refusals
from .wall_clock import WallClock

WINDOW = 200
BEHIND_BYTES = 2**20  # of received messages that wait here, above which the link stops reading
MESSAGE_BYTES = 500  # of memory that a message takes beside its topic and payload
BATCH = 16  # events between two answers: waking the link's thread for each would cost more than most of them
LONGEST_SLEEP_S = 1.0
STOP_S = 1.5  # from Stop until the link leaves, whatever is still to be sent; SIGTERM ends a process in 3 s
FINISH_S = 10.0  # the same, if the machine has ended by itself


class LinkHost(Host[E, A]):
    """Subclasses set `machine` and `link` before `run`. `on_link_event` is what the link calls."""

    link: MqttLink

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self.device = ""  # a device's own id: log lines are about it
        self.boot = 0  # number of the connection that is up or being tried; its will has it too
        self.stopping = False
        self._looked_at = -LONGEST_SLEEP_S
        self.protocol = ""  # the MQTT version of the connection that is up
        self.refusals = Refusals()
        self._events: queue.SimpleQueue[E | Event | LinkEvent] = queue.SimpleQueue()
        self._backlog: deque[Publish] = deque()
        self._online = False
        self._dropping = False  # the log says already that messages published off-line are dropped
        self._sent: dict[int, tuple[int | None, str]] = {}  # the link's token -> the machine's, and the topic
        self._processed: list[tuple[int, int]] = []  # handles of messages to be acknowledged
        self._clock = WallClock()
        self._bytes_in = 0  # weight of all messages received; written by the link's thread alone
        self._stop_at: float | None = None  # once Stop was posted, which overtakes all other events
        self._told: Flow | None = None  # what passed the link when the machine was last told
        self._bytes_done = 0  # weight of those processed; written by the host's thread alone

    # Any thread

    def post(self, event: E | Event) -> None:
        """Queue an event for the machine. Stop overtakes what waits: messages that are not processed come again."""
        if isinstance(event, Stop) and self._stop_at is None:
            self._stop_at = time.monotonic() + STOP_S
        self._events.put(event)

    def on_link_event(self, event: LinkEvent) -> None:
        """Called on the link's thread, which waits meanwhile: queue the event, no more."""
        if isinstance(event, Up):
            self.protocol = event.protocol
            self._events.put(Connected(self.boot, event.max_packet_bytes))
            return
        if isinstance(event, Down):
            self.boot += 1
            self.next_will()
        if isinstance(event, Message):
            self._bytes_in += _weight(event)
        self._events.put(event)

    def is_behind(self) -> bool:
        """Whether the link should read no more for now. MQTT's own flow control is not enough: mosquitto 2.0.11 sends a
        whole window of messages for every one that is acknowledged."""
        return self._bytes_in - self._bytes_done > BEHIND_BYTES

    def next_will(self) -> None:
        """Called on the link's thread when the will of the next connection is due."""

    # The host's thread

    def run(self) -> None:
        """Run until Stop has been posted and processed. After any other end the broker publishes the will, or has our
        last words."""
        self.link.start()
        try:
            while not self.stopping:
                self._turn()
                systemd.turned(self, time.monotonic())
            systemd.ended(self)
            finish_at = time.monotonic() + FINISH_S
            self._drain(finish_at)
        except BaseException as error:
            systemd.ended(self)
            # After a clean DISCONNECT the last status stays; if that is not our last words, we would seem present.
            self.link.stop(will=not self._tell(error))
            raise
        silent = any(message.retain for message in self._backlog)  # our last words are among what has not left
        self.link.stop(max(0.0, (self._stop_at or finish_at) - time.monotonic()), will=silent)

    def last_words(self, error: BaseException) -> Publish | None:
        """What to publish about an error that ends the process; else the will says only that it is gone."""
        return None

    def _tell(self, error: BaseException) -> bool:
        """Publish the last words; whether the broker has them."""
        if (words := self.last_words(error)) is None:
            return False
        until = time.monotonic() + STOP_S
        try:
            token = self.link.publish(words.topic, words.payload, retain=words.retain)
            while True:
                event = self._events.get(timeout=max(0.0, until - time.monotonic()))
                if isinstance(event, Published) and event.token == token:
                    return event.ok
        except (TransportError, queue.Empty):
            return False

    def _turn(self) -> None:
        if (time_of_day := self._clock.news()) is not None:
            self.feed(time_of_day)
        wake_at = self.machine.wake_at
        sleep_s = self.look_s if wake_at is None else min(self.look_s, max(0.0, wake_at - time.monotonic()))
        try:
            event = self._events.get(timeout=sleep_s)
            self._tell_flow()
            self._handle(event)
            for _ in range(min(self._events.qsize(), BATCH - 1)):
                if self._stop_at is not None:
                    break
                self._handle(self._events.get())
        except queue.Empty:
            self._tell_flow()
        if self._stop_at is not None and not self.stopping:
            self._handle(Stop())
        if wake_at is not None and time.monotonic() >= wake_at:
            self.feed(Tick())
        if (now := time.monotonic()) >= self._looked_at + self.look_s:
            self._looked_at = now
            self.look_around()
        self._answer()

    def _tell_flow(self) -> None:
        """Tell the machine what passes the link, if anything has passed since it was last told."""
        flow = self.link.flow
        if flow is not None and flow is not self._told:
            self._told = flow
            self.feed(flow)

    def _drain(self, finish_at: float) -> None:
        """Send what still waits here, if the broker accepts it in time; Stop makes that shorter."""
        while (self._backlog or self._sent) and (left_s := (self._stop_at or finish_at) - time.monotonic()) > 0:
            try:
                self._handle(self._events.get(timeout=left_s))
            except queue.Empty:
                return
            self._answer()

    def look_around(self) -> None:
        """Called about every `look_s`, however many messages arrive."""

    @property
    def look_s(self) -> float:
        """Seconds between two calls of look_around."""
        return LONGEST_SLEEP_S

    def _handle(self, event: E | Event | LinkEvent) -> None:
        match event:
            case Message():
                self.feed(Received(event.topic, event.payload, event.retain))
                self.done(event)
            case Connected():
                self._online, self._dropping = True, False
                self.feed(event)
            case Down():
                self._online = False
                self._backlog.clear()
                self._sent.clear()
                self.feed(Disconnected())
            case Published():
                token, topic = self._sent.pop(event.token, (None, ""))
                if event.refused and (line := self.refusals.line(topic, event.reason, self.now())):
                    self.log.warning("%s", line)
                if token is not None:
                    self.feed(Sent(token, event.ok))
            case Refused() | Up():
                pass  # the link has logged it
            case Stop():
                if not self.stopping:
                    self.stopping = True
                    self.feed(event)
            case _:
                self.feed(event)

    def done(self, message: Message) -> None:
        """The message has been processed."""
        self._processed.append(message.handle)
        self._bytes_done += _weight(message)

    def now(self) -> float:
        return time.monotonic()

    def publish(self, action: Publish) -> None:
        self._backlog.append(action)

    def subscribe(self, action: Subscribe) -> None:
        self.link.subscribe(list(action.topics), action.qos)

    def unsubscribe(self, action: Unsubscribe) -> None:
        self.link.unsubscribe(list(action.topics))

    def note(self, action: Note) -> None:
        told = {"kind": action.kind, "round": action.round, "device": action.device or self.device}
        self.log.log(getattr(logging, action.level.upper()), action.text, extra=told)

    def _answer(self) -> None:
        """Send what the link has room for, and acknowledge the messages that were processed. That does not wait for our
        answers: unacknowledged messages fill the broker's queue, which is shorter than our memory."""
        self._pump()
        if self._processed:
            self.link.ack(*self._processed)
            self._processed.clear()

    def _pump(self) -> None:
        while self._backlog and len(self._sent) < WINDOW:
            message = self._backlog[0]
            try:
                token = self.link.publish(message.topic, message.payload, retain=message.retain)
            except TransportError as error:
                self._complain(error)
                self._backlog.popleft()
                if message.token is not None:
                    self.post(Sent(message.token, False))
                continue
            self._backlog.popleft()
            self._sent[token] = (message.token, message.topic)

    def _complain(self, error: TransportError) -> None:
        """Log what was not sent, once an outage."""
        if self._online or not self._dropping:
            self.log.warning("%s", error)
        self._dropping = not self._online


def _weight(message: Message) -> int:
    """About how much memory a message takes while it waits."""
    return len(message.topic) + len(message.payload) + MESSAGE_BYTES
