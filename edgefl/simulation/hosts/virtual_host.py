"""VirtualHost: a host whose machine lives on a virtual clock. Base of the fleet's hosts and of the tests' ones."""

from __future__ import annotations

from ...hosting.host import Host
from ...machine import A, E, Event, Tick
from ..clock import VirtualClock


class VirtualHost(Host[E, A]):
    """Gives its machine a Tick whenever that wants one."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self._tick_at: float | None = None  # the virtual time of the next Tick

    def now(self) -> float:
        return self.clock.now

    def virtual(self, at: float) -> float:
        """The virtual time at which this host's clock shows `at`."""
        return at

    def feed(self, event: E | Event) -> None:
        super().feed(event)
        self.plan_tick()

    def plan_tick(self) -> None:
        """Schedule the Tick that the machine wants, unless one comes before it anyway."""
        wake_at = self.machine.wake_at
        if wake_at is None:
            return
        at = self.virtual(wake_at)
        if self._tick_at is None or at < self._tick_at:
            self._tick_at = at
            self.clock.after(at - self.clock.now, lambda: self._tick(at))

    def _tick(self, at: float) -> None:
        if at == self._tick_at:  # else an earlier Tick, or a new start of this host, has replaced it
            self._tick_at = None
            self.feed(Tick())
