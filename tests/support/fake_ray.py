"""What RayPool wants of Ray, in this process: a promise is kept when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Reference:
    """Of an object in the store, or of a result that is not computed before it is wanted."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, []

    def get(self) -> Any:
        if not self._made:
            self._made.append(self._make())
        return self._made[0]


def _plain(value: Any) -> Any:
    """What a call gets: arrays are made anew for each, of the same memory."""
    found = value.get() if isinstance(value, Reference) else value
    return found.view() if isinstance(found, np.ndarray) else found


class Method:
    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def remote(self, *values: Any, **named: Any) -> Reference:
        def call() -> Any:
            return self._method(*map(_plain, values), **{key: _plain(value) for key, value in named.items()})

        return Reference(call)


class Actor:
    def __init__(self, made: Any) -> None:
        self._made = made

    def __getattr__(self, name: str) -> Method:
        return Method(getattr(self._made, name))


class FakeRay:
    """A cluster of `processors` processors, of which `late` workers find no place."""

    def __init__(self, processors: int = 2, late: int = 0) -> None:
        self.processors, self.late = processors, late
        self.is_up = False
        self.puts = self.cancelled = self.killed = 0

    def is_initialized(self) -> bool:
        return self.is_up

    def init(self, **options: Any) -> None:
        if options.get("address") == "auto":
            raise ConnectionError("no cluster runs here")
        self.is_up = True

    def shutdown(self) -> None:
        self.is_up = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.processors)}

    def remote(self, **options: Any) -> Callable[[type], Any]:
        class Remote:
            def __init__(self, kind: type) -> None:
                self._kind = kind

            def remote(self, *values: Any) -> Actor:
                return Actor(self._kind(*values))

        return Remote

    def put(self, value: Any) -> Reference:
        assert not isinstance(value, Reference)
        self.puts += 1
        return Reference(lambda: value)

    def get(self, wanted: Any) -> Any:
        return [one.get() for one in wanted] if isinstance(wanted, list) else wanted.get()

    def wait(self, promises: list[Reference], **options: Any) -> tuple[list[Reference], list[Reference]]:
        ready = len(promises) - self.late
        return promises[:ready], promises[ready:]

    def cancel(self, promise: Reference) -> None:
        self.cancelled += 1

    def kill(self, actor: Actor) -> None:
        self.killed += 1
