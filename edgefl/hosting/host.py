"""Host: feeds one state machine and carries out its actions. Base of real hosts (link_host.py) and simulated ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Generic

from ..machine import A, Action, E, Event, Machine, Note, Publish, Subscribe, Unsubscribe, assert_never


class Host(ABC, Generic[E, A]):
    """Subclasses set `machine`, say what time it is, and implement each action."""

    machine: Machine[E, A]
    _answers: deque[E | Event] | None = None  # events that wait for the actions under way; None: no action is

    @abstractmethod
    def now(self) -> float:
        """Monotonic seconds, on the machine's clock."""

    def feed(self, event: E | Event) -> None:
        """Give one event to the machine and carry out its actions in their order.

        The answer to an action, such as an evaluation's result, comes after all actions that were decided before it.
        """
        if self._answers is not None:
            self._answers.append(event)
            return
        self._answers = deque([event])
        try:
            while self._answers:
                for action in self.machine.step(self._answers.popleft(), self.now()):
                    self.carry_out(action)
        finally:
            self._answers = None

    @abstractmethod
    def carry_out(self, action: A) -> None:
        """Do what the machine asks; everything that both machines ask is left to `carry_out_shared`."""

    def carry_out_shared(self, action: Action) -> None:
        """Carry out an action that both machines know."""
        match action:
            case Publish():
                self.publish(action)
            case Subscribe():
                self.subscribe(action)
            case Unsubscribe():
                self.unsubscribe(action)
            case Note():
                self.note(action)
            case _:
                assert_never(action)

    @abstractmethod
    def publish(self, action: Publish) -> None:
        """Send it, and feed Sent later if it has a token."""

    @abstractmethod
    def subscribe(self, action: Subscribe) -> None: ...

    @abstractmethod
    def unsubscribe(self, action: Unsubscribe) -> None: ...

    @abstractmethod
    def note(self, action: Note) -> None:
        """Log it."""
