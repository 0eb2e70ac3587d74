"""What a state machine is, and the events and actions that DeviceSession and RoundCoordinator share.

A machine never touches a socket, a clock, a disk or a thread. Its host (hosting/host.py: in the agent, the aggregator
or the simulator) feeds it events and carries out its actions in their order. device/events.py and coordinator/events.py
extend `Event` and `Action` by what only a device or only an aggregator knows. They are msgspec's structs: a dataclass
takes five times as long to make, and each class of them 10 kB more.
"""

from __future__ import annotations

from typing import Literal, NoReturn, Protocol, TypeAlias, TypeVar

from msgspec import Struct


class Connected(Struct, frozen=True):
    """There is a connection, the `boot`th. `max_packet_bytes`: the longest packet that the broker accepts, if known."""

    boot: int = 0
    max_packet_bytes: int | None = None


class Disconnected(Struct, frozen=True):
    """The connection is lost. Messages that were not acknowledged may or may not have arrived."""


class Received(Struct, frozen=True, gc=False):
    """A message has arrived; `retained`: the broker had kept it, and sent it for a subscription."""

    topic: str
    payload: bytes
    retained: bool = False


class Sent(Struct, frozen=True):
    """The broker has acknowledged, or refused, the Publish with this `token`. That proves no delivery."""

    token: int
    ok: bool


class Flow(Struct, frozen=True):
    """What passes the link. A host that measures it says so before a Tick, at most once a second, and only after
    something has passed; other hosts never do.

    `received` and `acknowledged` (by the peer's kernel) count bytes since the host began. `pending` bytes are on their
    way to the broker. `arriving` bytes belong to a packet that is not whole yet. `rate_in` and `rate_out`, in bytes a
    second, are cautious guesses while little has passed.
    """

    received: int
    acknowledged: int
    pending: int
    arriving: int
    rate_in: float
    rate_out: float
    keepalive_s: float


class Tick(Struct, frozen=True):
    """Time has passed."""


class WallTime(Struct, frozen=True):
    """It is `unix_s` seconds after the start of 1970, UTC; `trusted` unless the host can't know that yet. Hosts feed it
    at their start, when their clock is set, and once a minute."""

    unix_s: float
    trusted: bool = True


class Stop(Struct, frozen=True):
    """The host is about to end."""


class Publish(Struct, frozen=True):
    """Send at QoS 1; if there is a token, answer with Sent once the broker has."""

    topic: str
    payload: bytes
    retain: bool = False
    token: int | None = None


class Subscribe(Struct, frozen=True):
    """Subscribe to exact topics or filters. A repeated subscription brings the retained messages again.

    QoS 0 is for many short retained messages: brokers queue QoS 1 and drop what their queue can't hold.
    """

    topics: tuple[str, ...]
    qos: Literal[0, 1] = 1


class Unsubscribe(Struct, frozen=True):
    """End these subscriptions."""

    topics: tuple[str, ...]


class Note(Struct, frozen=True):
    """A line for the log. Of several warnings of one `kind` in a minute, the first is written and the others are
    counted; without a kind, of those with one text. `round` and `device` are those that the line is about, for logs
    that are read by programs."""

    level: Literal["debug", "info", "warning", "error"]
    text: str
    kind: str = ""
    round: int = 0
    device: str = ""


Event: TypeAlias = Connected | Disconnected | Received | Sent | Flow | Tick | WallTime | Stop
Action: TypeAlias = Publish | Subscribe | Unsubscribe | Note

E = TypeVar("E", contravariant=True)  # all events of a machine, `Event` among them
A = TypeVar("A")  # all its actions, `Action` among them


class Machine(Protocol[E, A]):
    """A state machine. `now` is monotonic seconds, on the host's clock."""

    @property
    def wake_at(self) -> float | None:
        """When the machine wants a Tick; None: not until something happens."""

    def step(self, event: E | Event, now: float) -> list[A]:
        """Process one event; returns what the host has to do, in order."""


class WallClock:
    """What a machine knows of the time of day: the newest WallTime, carried on by the machine's own clock. `offset` is
    the difference of the two clocks; None without a trusted time."""

    def __init__(self) -> None:
        self.offset: float | None = None
        self._guess: float | None = None

    def hear(self, event: object, now: float) -> None:
        """Of all events this one matters: the host tells the time."""
        if isinstance(event, WallTime):
            self._guess = event.unix_s - now
            self.offset = self._guess if event.trusted else None

    def at(self, now: float) -> float | None:
        """Seconds after the start of 1970, UTC, when the machine's clock shows `now`; None without a trusted time."""
        return None if self.offset is None else now + self.offset

    def shown(self, now: float) -> float | None:
        """The same, for people to read: a time that may be wrong is better than none."""
        return None if self._guess is None else now + self._guess


def assert_never(value: NoReturn) -> NoReturn:
    """For the last case of a match: mypy proves that it is never reached (typing.assert_never, from Python 3.11)."""
    raise TypeError(f"{type(value).__name__} is not expected here: {value!r}")
